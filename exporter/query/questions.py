"""Questions that are often asked of a catalogue, as SQL that runs on any: `export-model query --example`.

Sums are cast to BIGINT, because DuckDB's own type for them has 128 bits, which pandas and Arrow show as decimals.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    text: str
    sql: str


QUESTIONS = {
    "largest-layers": Question(
        "the layers with most parameters, over all models",
        "SELECT model, layer, class, params, weight_bytes FROM layers ORDER BY params DESC, model, index LIMIT 20",
    ),
    "layers-with-nan": Question(
        "weights with NaN or infinite elements (needs --stats)",
        "SELECT model, layer, tensor, nans, infs FROM tensors WHERE nans > 0 OR infs > 0 ORDER BY model, layer, tensor",
    ),
    "head-share": Question(
        "the share of the parameters in the head: the last layer that has any",
        """SELECT layers.model, arg_max(layer, index) AS head, arg_max(layers.params, index) AS head_params,
       round(arg_max(layers.params, index) / any_value(models.params), 4) AS share
FROM layers JOIN models USING (model) WHERE layers.params > 0
GROUP BY layers.model ORDER BY share DESC, layers.model""",
    ),
    "memory-at-32": Question(
        "bytes of weights and of activations at batch 32, where the costs are known",
        """SELECT model, weight_bytes, peak_activation_bytes * 32 // cost_batch_size AS activation_bytes_at_32,
       weight_bytes + peak_activation_bytes * 32 // cost_batch_size AS bytes_at_32
FROM models ORDER BY bytes_at_32 DESC NULLS LAST, model""",
    ),
    "duplicates": Question(
        "weights that are the same in several models, bit for bit (needs --stats)",
        """SELECT sha256, count(DISTINCT model) AS models, any_value(tensor) AS tensor, any_value(nbytes) AS nbytes
FROM tensors WHERE sha256 IS NOT NULL
GROUP BY sha256 HAVING count(DISTINCT model) > 1 ORDER BY nbytes DESC, sha256 LIMIT 50""",
    ),
    "params-by-dtype": Question(
        "parameters and bytes of each dtype",
        """SELECT part.dtype, sum(part.params)::BIGINT AS params, sum(part.nbytes)::BIGINT AS nbytes
FROM (SELECT unnest(weights_by_dtype) AS part FROM models) GROUP BY part.dtype ORDER BY params DESC""",
    ),
    "macs-by-class": Question(
        "multiply-accumulate operations by class of layer, of layers that contain no others",
        """SELECT class, count(*) AS layers, sum(macs)::BIGINT AS macs FROM layers
WHERE (model, layer) NOT IN (SELECT (model, parent) FROM layers WHERE parent IS NOT NULL)
GROUP BY class ORDER BY macs DESC NULLS LAST, class""",
    ),
    "ops": Question(
        "how often each ONNX operator is used, and in how many models",
        """SELECT domain, op_type, count(*) AS nodes, count(DISTINCT model) AS models FROM nodes
GROUP BY domain, op_type ORDER BY nodes DESC, op_type""",
    ),
    "nodes-without-layer": Question(
        "ONNX nodes of which no layer is known, by operator",
        """SELECT op_type, match_kind, count(*) AS nodes, count(DISTINCT model) AS models FROM nodes
WHERE layer IS NULL GROUP BY op_type, match_kind ORDER BY nodes DESC, op_type""",
    ),
    "unused-weights": Question(
        "weights that are in no ONNX initializer of a converted model",
        """SELECT model, layer, tensor, nbytes FROM tensors
WHERE initializers IS NOT NULL AND len(initializers) = 0 ORDER BY nbytes DESC, model, tensor LIMIT 50""",
    ),
    "tied-weights": Question(
        "ONNX initializers that hold several whole weights of a model: tied or equal ones",
        """SELECT model, initializer, count(*) AS weights, list(tensor ORDER BY tensor) AS tensors FROM tensors
WHERE initializer IS NOT NULL AND transform <> 'folded'
GROUP BY model, initializer HAVING count(*) > 1 ORDER BY weights DESC, model, initializer LIMIT 50""",
    ),
    "deepest-models": Question(
        "the models with most layers, and how deeply they are nested",
        """SELECT model, count(*) AS layers, max(depth) AS deepest, count(*) FILTER (params > 0) AS layers_with_params
FROM layers GROUP BY model ORDER BY layers DESC, model LIMIT 20""",
    ),
    "memory-bound-layers": Question(
        "layers with the fewest operations per byte among those that compute much",
        """SELECT model, layer, class, flops, round(arithmetic_intensity, 2) AS flops_per_byte FROM layers
WHERE flops > 1000000 ORDER BY arithmetic_intensity, model, index LIMIT 20""",
    ),
    "verification": Question(
        "whether each export agrees with its source; what failed first",
        """SELECT model, verification, max_abs_difference, verification_reason FROM models
ORDER BY verification = 'mismatch' DESC, verification = 'skipped' DESC, max_abs_difference DESC NULLS LAST, model""",
    ),
}
