/**
 * An answer that grows by the chunks of a stream. A message is what the API knows, and beside it, under `about`, what only
 * this page does: {role, content, reasoning_content?, tool_calls?, server_tools?,
 * about: {model, end, usage, first, seconds, error}}.
 */

/** Return an answer without anything in it. */
export const emptyAnswer = (model) => ({ role: 'assistant', content: '', about: { model } });

/** Add a chunk to an answer. Servers call the model's reasoning `reasoning_content` or `reasoning`. */
export function addChunk(answer, chunk) {
  if (chunk.usage) answer.about.usage = chunk.usage;
  const choice = chunk.choices?.find((one) => (one.index ?? 0) === 0);
  if (!choice) return;
  const delta = choice.delta ?? {};
  if (delta.content) answer.content += delta.content;
  if (delta.refusal) answer.content += delta.refusal;
  const reasoning = delta.reasoning_content ?? delta.reasoning;
  if (reasoning) answer.reasoning_content = (answer.reasoning_content ?? '') + reasoning;
  for (const part of delta.tool_calls ?? []) addToolCall(answer, part);
  for (const run of delta.server_tools ?? []) addServerTool(answer, run);
  if (choice.finish_reason) answer.about.end = choice.finish_reason;
}

function addToolCall(answer, part) {
  answer.tool_calls ??= [];
  const call = (answer.tool_calls[part.index ?? answer.tool_calls.length] ??= {
    id: '', type: 'function', function: { name: '', arguments: '' },
  });
  if (part.id) call.id = part.id;
  if (part.function?.name) call.function.name += part.function.name;
  if (part.function?.arguments) call.function.arguments += part.function.arguments;
}

/** A call that the server itself answers comes twice under one id: when it begins, and with its result. */
function addServerTool(answer, run) {
  answer.server_tools ??= [];
  const known = answer.server_tools.find(({ id }) => id === run.id);
  if (known) Object.assign(known, run);
  else answer.server_tools.push({ ...run });
}

/** Return a message as the API takes it back. */
export function asSent({ role, content, tool_calls: calls, tool_call_id: id }) {
  const message = { role, content };
  if (calls?.length) message.tool_calls = calls.filter(Boolean);
  if (id) message.tool_call_id = id;
  return message;
}
