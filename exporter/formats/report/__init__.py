"""`model.html`: all about a model in one page that needs no network and lets nothing of the model run."""
