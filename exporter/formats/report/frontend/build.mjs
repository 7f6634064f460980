// Makes ../assets from src: the bundle, its styles, the page and the licences of all that is in the bundle.
// BUILD.json there says which sources they were made of, so that a test can tell whether they are the present ones.

import { createHash } from "node:crypto";
import { copyFile, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { build } from "esbuild";

const ASSETS = join(import.meta.dirname, "..", "assets");
const ALLOWED = ["MIT", "ISC", "BSD-3-Clause", "Apache-2.0", "Unlicense"];
const SETTINGS = ["package.json", "package-lock.json", "tsconfig.json", "build.mjs"];
process.chdir(import.meta.dirname);

const common = { bundle: true, minify: true, legalComments: "none", target: ["chrome123", "firefox120", "safari17.5"], charset: "utf8" };
await mkdir(ASSETS, { recursive: true });
const result = await build({ ...common, entryPoints: ["src/main.ts"], outfile: join(ASSETS, "report.js"), format: "iife", metafile: true });
await build({ ...common, entryPoints: ["src/loader.js"], outfile: join(ASSETS, "loader.js"), format: "esm" });
for (const name of ["head.html", "look.css", "page.html"]) {
  await copyFile(join("src", name), join(ASSETS, name));
}
await writeFile(join(ASSETS, "LICENSES.txt"), await licences(Object.keys(result.metafile.inputs)));
await writeFile(join(ASSETS, "BUILD.json"), JSON.stringify({ sources: await digest(), assets: await digests() }, null, 2) + "\n");

/** The licence texts of the packages that gave files to the bundle. */
async function licences(inputs) {
  const folders = new Set(inputs.map(packageFolder).filter(Boolean));
  const texts = await Promise.all([...folders].sort().map(licence));
  return texts.join(`\n${"-".repeat(80)}\n\n`);
}

function packageFolder(path) {
  const parts = path.split("/");
  const at = parts.lastIndexOf("node_modules");
  return at < 0 ? undefined : parts.slice(0, at + (parts[at + 1].startsWith("@") ? 3 : 2)).join("/");
}

async function licence(folder) {
  const about = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  if (!ALLOWED.includes(about.license)) {
    throw new Error(`${about.name} has the licence ${about.license}`);
  }
  const file = (await readdir(folder)).find((name) => /^licen[cs]e/i.test(name));
  const text = file ? await readFile(join(folder, file), "utf8") : `${about.license}, as its package.json says.\n`;
  return `${about.name} ${about.version} (${about.license})\n\n${text.trim()}\n`;
}

/** SHA-256 over names and contents of all sources, in order of their names. */
async function digest() {
  const names = (await readdir("src")).map((name) => `src/${name}`);
  const hash = createHash("sha256");
  for (const name of [...SETTINGS, ...names].sort()) {
    hash.update(name).update("\0").update(await readFile(name)).update("\0");
  }
  return hash.digest("hex");
}

async function digests() {
  const names = (await readdir(ASSETS)).filter((name) => name !== "BUILD.json").sort();
  const entries = names.map(async (name) => [name, createHash("sha256").update(await readFile(join(ASSETS, name))).digest("hex")]);
  return Object.fromEntries(await Promise.all(entries));
}
