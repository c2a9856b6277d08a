/** What became of a request, from its record. */

/** All outcomes, from nothing to most. */
export const OUTCOMES = ['allowed', 'rewritten', 'withheld', 'blocked'];

/** One of `OUTCOMES`: blocked at input, an answer withheld at output, the input rewritten, or none of these. */
export function outcome(record) {
  if (record.input_action === 'block') return 'blocked';
  if (record.answers.some(({ end, findings }) => end === 'content_filter' || findings.length)) return 'withheld';
  return record.input_action === 'rewrite' ? 'rewritten' : 'allowed';
}
