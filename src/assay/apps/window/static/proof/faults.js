// Where a text stops being JSON, for people who look for what was changed: browsers do not all say.
const MOST_SEARCHED = 2 ** 20;
const token = (pattern) => new RegExp(`\\s*(?:${pattern})`, "y");
const STRING = '"(?:[^"\\\\\\u0000-\\u001f]|\\\\.)*"';
const TOKENS = {
  "{": token("\\{"), "}": token("\\}"), "[": token("\\["), "]": token("\\]"), ",": token(","), ":": token(":"),
  string: token(STRING),
  scalar: token(`${STRING}|-?\\d+(?:\\.\\d+)?(?:[eE][+-]?\\d+)?|true|false|null`),
};

/** The place, 0 for long texts. The text nests no deeper than `checkBounds` allows. */
export function faultIn(text) {
  let at = 0;
  const take = (name) => {
    TOKENS[name].lastIndex = at;
    if (!TOKENS[name].test(text)) return false;
    at = TOKENS[name].lastIndex;
    return true;
  };
  const several = (one, end) => {
    if (take(end)) return true;
    do if (!one()) return false;
    while (take(","));
    return take(end);
  };
  const member = () => take("string") && take(":") && value();
  const value = () => {
    if (take("{")) return several(member, "}");
    return take("[") ? several(value, "]") : take("scalar");
  };
  if (text.length <= MOST_SEARCHED) value();
  return at;
}

/** The name of the last member that begins in a part of JSON text; nothing if none does. */
export const memberBefore = (text) => [...text.matchAll(/"(\w{1,40})":/g)].at(-1)?.[1] ?? "";
