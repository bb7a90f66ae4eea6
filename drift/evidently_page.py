"""Evidently's report as one light page: the same document, packed into one that unpacks itself.

Evidently writes its whole script, 3.5 MB, and every value with 17 digits into every report. Here the document is
compressed and unpacked by the reader's browser (Compression Streams: Chromium 80, Firefox 113, Safari 16.4), so that
one file is still all there is to it, in Kubeflow's UI, in the console and on a disk. Nothing is fetched.
"""

from __future__ import annotations

import base64
import re
import zlib

DIGITS = re.compile(r"(?<=[\s\[,:])-?\d+\.\d{7,}(?:e[+-]?\d+)?(?=[\s\],}])")
"""A number with more decimals than a chart can show."""

SIGNIFICANT = 6
"""Digits of a number that are kept; the JSON beside the page has them all."""

ICONS = re.compile(r"@font-face\s*\{[^{}]*?'Material Icons'[^{}]*\}")
"""A font of 120 KB for icons that Evidently's report has none of: its own are drawn as SVG."""

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;,=>?@^_`{|}~"
"""Base 85 as :func:`base64.b85encode` has it, with a comma for ``<``, which HTML would take for its own."""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title></head><body>
<p id="wait">Unpacking the report.</p>
<noscript><p>Evidently's report needs scripts; the file with the same name and the ending .json has its numbers.</p>
</noscript>
<script type="text/plain" id="packed">{packed}</script>
<script>
(async () => {{
  const alphabet = "{alphabet}", worth = new Uint8Array(128);
  for (let i = 0; i < 85; i++) worth[alphabet.charCodeAt(i)] = i;
  const text = document.getElementById("packed").textContent, size = {size};
  const bytes = new Uint8Array(text.length / 5 * 4), view = new DataView(bytes.buffer);
  for (let i = 0, at = 0; i < text.length; i += 5, at += 4) {{
    let four = 0;
    for (let k = 0; k < 5; k++) four = four * 85 + worth[text.charCodeAt(i + k)];
    view.setUint32(at, four);
  }}
  const unpacked = new Blob([bytes.subarray(0, size)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const page = await new Response(unpacked).text();
  document.open();
  document.write(page);
  document.close();
}})().catch((error) => {{
  document.getElementById("wait").textContent = `This browser cannot unpack the report (${{error}}): use a newer one.`;
}});
</script></body></html>
"""


def light(document: str, title: str) -> str:
    """The document of Evidently's, packed. ``title`` is plain text of ours, shown until it is unpacked."""
    at = document.find("<script>var ")  # behind the data comes the script, which is not ours to round
    at = len(document) if at < 0 else at
    data = DIGITS.sub(lambda found: f"{float(found.group()):.{SIGNIFICANT}g}", document[:at])
    packed = zlib.compress((ICONS.sub("", data) + document[at:]).encode(), 9)
    size = len(packed)
    text = base64.b85encode(packed, pad=True).decode().replace("<", ",")
    return PAGE.format(title=title, packed=text, size=size, alphabet=ALPHABET)


def document_of(page: str) -> str:
    """What :func:`light` packed, as a browser unpacks it.

    Raises:
        ValueError: this is no such page.

    """
    found = re.search(r'id="packed">([^<]*)<.*?size = (\d+)', page, re.DOTALL)
    if found is None:
        raise ValueError("this is no packed report")
    return zlib.decompress(base64.b85decode(found[1].replace(",", "<"))[: int(found[2])]).decode()
