// What happened to a request, and when, as the program noted it (`core/trace.py`).
const MOST_MARKS = 64;

/** Marks of the trace that led to this receipt: numbers are numbers, words are a stranger's. */
export function marksOf(traces, digest) {
  const clean = traces.map((trace) =>
    trace.filter((mark) => Number.isFinite(mark.at_us)).slice(0, MOST_MARKS)
      .map(({ stage, at_us: at, note, facts }) => {
        const provider = String(facts?.provider ?? "");
        return { stage: String(stage), at, note: String(note), provider };
      }),
  );
  return clean.find((trace) => trace.some((mark) => mark.stage === "attest" && mark.note === digest)) ?? [];
}

/** Of these marks, those that tell of this receipt: others may have made parts of the answer, or been asked beside. */
export function ownMarks(marks, digest, provider) {
  const attested = marks.findIndex((mark) => mark.stage === "attest" && mark.note === digest);
  const sent = marks.findLastIndex((mark, n) => mark.stage === "send" && mark.provider === provider && n < attested);
  const parts = marks.filter((mark) => mark.stage === "attest").length;
  const chosen = marks.findLastIndex((mark, n) => mark.stage === "match" && (sent < 0 || n < sent));
  return marks.filter((mark, n) => {
    if (mark.stage === "match") return n === chosen;
    if (mark.stage === "attest") return n === attested;
    if (mark.stage === "check" || mark.stage === "keep") return n > attested;
    if (mark.stage === "last_token") return parts < 2; // the whole answer's
    return mark.provider === "" || mark.provider === provider || mark.stage === "failed";
  });
}

/** Seconds from the sending of a request to its last token; 0 where that is not known. */
export function generation(marks) {
  const from = marks.findLast((mark) => mark.stage === "send");
  const to = marks.findLast((mark) => mark.stage === "last_token");
  return from && to ? (to.at - from.at) / 1e6 : 0;
}
