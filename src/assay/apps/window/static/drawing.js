// How an answer that grows is drawn: not too often, and in sight of who reads its end.
const DRAW_MS = 120; // between two drawings, and more where one takes long
const NEAR_END = 120; // pixels

/** Work that is done at most some times a second: `soon()`, however often it is called; `now()` at the end. */
export function paced(work) {
  let timer = null;
  let cost = 0;
  const run = () => {
    timer = null;
    const begun = performance.now();
    work();
    cost = performance.now() - begun;
  };
  return {
    soon: () => (timer ??= setTimeout(run, Math.max(DRAW_MS, 4 * cost))),
    now: () => {
      clearTimeout(timer);
      run();
    },
  };
}

/** Change the page; who was at its end stays there. */
export function followed(work) {
  const follow = innerHeight + scrollY >= document.documentElement.scrollHeight - NEAR_END;
  work();
  if (follow) toEnd();
}

/** Go to the end of the page. */
export function toEnd() {
  scrollTo({ top: document.documentElement.scrollHeight });
}
