// Unpacks the bundle and runs it; the page's policy knows the hash of either script and of no other.
(async () => {
  const trouble = document.getElementById("trouble");
  try {
    const text = atob(document.getElementById("bundle").textContent);
    const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.body.append(script);
  } catch (error) {
    trouble.textContent = `The interactive parts need a newer browser (${error.message}).`;
    trouble.hidden = false;
  }
})();
