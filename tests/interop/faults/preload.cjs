// Loaded into a Node server before its own code: what it writes is disturbed as files beside this one say.
// `noise`: a line that is no message before each. `garbage`: nothing but such lines. `slow`: each write late.
const fs = require("node:fs");
const path = require("node:path");

const on = (name) => fs.existsSync(path.join(__dirname, name));
const write = process.stdout.write.bind(process.stdout);

process.stdout.write = (text, ...rest) => {
  if (on("slow")) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1200);
  if (on("noise")) write("npm warn deprecated: this is no message\n");
  return write(on("garbage") ? "\u00ff not JSON {\n" : text, ...rest);
};
