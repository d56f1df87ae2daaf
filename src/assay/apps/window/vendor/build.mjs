// Bundles each entry into one module beside this file, with the licences of what is in it, and notes its digest.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";

const PARTS = {
  "noble.js": ["@noble/curves", "@noble/hashes"],
  "markdown.js": ["dompurify", "marked"],
};

const digests = {};

for (const [name, packages] of Object.entries(PARTS)) {
  await build({
    entryPoints: [`entries/${name}`],
    outfile: name,
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    legalComments: "none",
  });
  const parts = await Promise.all(
    packages.map(async (each) => {
      const { version } = JSON.parse(await readFile(`node_modules/${each}/package.json`, "utf8"));
      const licence = await readFile(`node_modules/${each}/LICENSE`, "utf8").catch(() =>
        readFile(`node_modules/${each}/LICENSE.md`, "utf8"),
      );
      return `${each} ${version}\n\n${licence.trim()}\n`;
    }),
  );
  await writeFile(`${name}.LICENSE`, parts.join("\n\n"));
  digests[name] = createHash("sha256").update(await readFile(name)).digest("hex");
}

await writeFile("digests.json", `${JSON.stringify(digests, null, 2)}\n`);
