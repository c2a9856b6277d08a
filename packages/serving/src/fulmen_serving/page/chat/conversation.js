/**
 * A conversation as it is kept and exported:
 * {id, title, created, updated, model, system, parameters: {…}, messages: [{role, content, …}]}. Times in Unix milliseconds.
 */

const ROLES = ['user', 'assistant', 'tool'];
const TITLE_LENGTH = 60;

/** Return an empty conversation with the settings of another, or none. */
export function newConversation({ model = '', system = '', parameters = {} } = {}) {
  const now = Date.now();
  // getRandomValues, unlike randomUUID, is there without TLS too
  const id = Array.from(crypto.getRandomValues(new Uint8Array(9)), (byte) => byte.toString(36)).join('');
  return { id, title: '', created: now, updated: now, model, system, parameters: { ...parameters }, messages: [] };
}

/** What a conversation is called: its title, or how it begins. */
export function titleOf(conversation) {
  if (conversation.title) return conversation.title;
  const first = conversation.messages.find((message) => message.role === 'user')?.content.trim() ?? '';
  const line = first.split('\n', 1)[0].replace(/^[#>*\s-]+/, '');
  return line.length > TITLE_LENGTH ? `${line.slice(0, TITLE_LENGTH - 1)}…` : line;
}

/** Return a conversation made of what a file holds, or null if that is none. Unknown fields are left out. */
export function readConversation(given) {
  if (typeof given !== 'object' || given === null || !Array.isArray(given.messages)) return null;
  const messages = given.messages.map(readMessage);
  if (messages.includes(null)) return null;
  const text = (value) => (typeof value === 'string' ? value : '');
  const time = (value) => (Number.isFinite(value) ? value : Date.now());
  const parameters = {};
  for (const [name, value] of Object.entries(given.parameters ?? {})) {
    if (['number', 'string'].includes(typeof value)) parameters[name] = value;
  }
  return {
    ...newConversation({ model: text(given.model), system: text(given.system), parameters }),
    id: /^[\w-]{1,64}$/.test(given.id) ? given.id : newConversation().id,
    title: text(given.title),
    created: time(given.created),
    updated: time(given.updated),
    messages,
  };
}

function readMessage(given) {
  if (typeof given !== 'object' || given === null || !ROLES.includes(given.role)) return null;
  const message = { role: given.role, content: String(given.content ?? '') };
  if (typeof given.reasoning_content === 'string') message.reasoning_content = given.reasoning_content;
  if (typeof given.tool_call_id === 'string') message.tool_call_id = given.tool_call_id;
  if (Array.isArray(given.tool_calls)) {
    message.tool_calls = given.tool_calls.map((call) => ({
      id: String(call?.id ?? ''),
      type: 'function',
      function: { name: String(call?.function?.name ?? ''), arguments: String(call?.function?.arguments ?? '') },
    }));
  }
  if (Array.isArray(given.server_tools)) {
    const texts = ['id', 'name', 'arguments', 'status', 'content'];
    message.server_tools = given.server_tools.map((run) => Object.fromEntries(texts.map((name) => [name, String(run?.[name] ?? '')])));
  }
  if (given.role === 'assistant') message.about = readAbout(given.about ?? {});
  return message;
}

function readAbout({ model, end, usage, first, seconds, error }) {
  const about = { model: String(model ?? '') };
  if (typeof end === 'string') about.end = end;
  if (typeof error === 'string') about.error = error;
  if (Number.isFinite(first)) about.first = first;
  if (Number.isFinite(seconds)) about.seconds = seconds;
  if (Number.isFinite(usage?.completion_tokens)) {
    about.usage = { prompt_tokens: Number(usage.prompt_tokens) || 0, completion_tokens: usage.completion_tokens };
  }
  return about;
}
