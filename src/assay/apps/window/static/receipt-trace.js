// What happened to a request, and when, as the program noted it (`core/trace.py`).
const MOST_MARKS = 64;

/** Marks of the trace that led to this receipt: numbers are numbers, words are a stranger's. */
export function marksOf(traces, digest) {
  const clean = traces.map((trace) =>
    trace.filter((mark) => Number.isFinite(mark.at_us)).slice(0, MOST_MARKS)
      .map((mark) => ({ stage: String(mark.stage), at: mark.at_us, note: String(mark.note) })),
  );
  return clean.find((trace) => trace.some((mark) => mark.stage === "attest" && mark.note === digest)) ?? [];
}

/** Seconds from the sending of a request to its last token; 0 where that is not known. */
export function generation(marks) {
  const from = marks.findLast((mark) => mark.stage === "send");
  const to = marks.findLast((mark) => mark.stage === "last_token");
  return from && to ? (to.at - from.at) / 1e6 : 0;
}
