// What a client's script says of itself: a line a check, `PASS` or `FAIL`, its name, what was wrong.
// The names that must come are in run.sh, so a script that ends early does not pass.

const CHECK_MS_MAX = 20_000;

/** Runs one check; nothing thrown, in time, is a pass. */
export async function check(name, run) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing within ${CHECK_MS_MAX} ms`)), CHECK_MS_MAX);
  });
  try {
    await Promise.race([run(), late]);
    console.log(`PASS\t${name}\t`);
  } catch (error) {
    const why = String(error?.message ?? error).replace(/\s+/g, ' ');
    console.log(`FAIL\t${name}\t${why}`);
  } finally {
    clearTimeout(timer);
  }
}

/** Fails the check unless both are the same as JSON. */
export function same(what, found, wanted) {
  const [left, right] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (left !== right) throw new Error(`${what}: ${left}, not ${right}`);
}

/** Fails the check unless `holds`. */
export function ensure(holds, what) {
  if (!holds) throw new Error(what);
}

/** The text of a tool's answer. */
export function textOf(result) {
  ensure(!result.isError, `the tool failed: ${JSON.stringify(result.content)}`);
  return result.content.map((block) => block.text ?? '').join('\n');
}
