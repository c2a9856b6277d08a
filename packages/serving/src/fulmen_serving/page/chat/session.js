/**
 * A conversation in progress: sends, streams, stops. It goes on while the user looks at another view.
 * Events: "change" (a message came, went or ended), "grow" (the last message has more).
 */

import { addChunk, asSent, emptyAnswer } from '../server/answer.js';
import { requestFields } from './parameters.js';

const SAVE_EVERY = 1000;

export class ChatSession extends EventTarget {
  /**
   * @param {Object} conversation see `conversation.js`; changed in place
   * @param {Endpoint} endpoint who is asked
   * @param {(conversation: Object) => void} save
   */
  constructor(conversation, endpoint, save = () => {}) {
    super();
    Object.assign(this, { conversation, endpoint, saveAs: save, running: null, saved: 0 });
  }

  get messages() {
    return this.conversation.messages;
  }

  /** Add a user's message and ask for the answer. */
  send(content) {
    return this.#continueWith({ role: 'user', content });
  }

  /** Add the result of a tool that the model called; the answer is asked for once no call is left without one. */
  async giveToolResult(id, content) {
    if (this.openToolCalls().length > 1) {
      this.messages.push({ role: 'tool', tool_call_id: id, content });
      this.#changed();
    } else {
      await this.#continueWith({ role: 'tool', tool_call_id: id, content });
    }
  }

  /** Replace the user's message at `index`, forget what came after it, and ask again. */
  async resend(index, content) {
    await this.stop();
    this.messages.length = index;
    await this.send(content);
  }

  /** Forget the answer at `index` and what came after it, and ask again. */
  async again(index) {
    await this.stop();
    this.messages.length = index;
    await this.#answer();
  }

  /** Stop the answer; what came of it stays. */
  async stop() {
    this.running?.abort();
    await this.ended;
  }

  /** Calls of the last answer that have no result yet. */
  openToolCalls() {
    const last = this.messages.findLastIndex((message) => message.role === 'assistant');
    const given = new Set(this.messages.slice(last + 1).map((message) => message.tool_call_id));
    if (last < 0 || this.messages.slice(last + 1).some((message) => message.role === 'user')) return [];
    return (this.messages[last].tool_calls ?? []).filter((call) => call && !given.has(call.id));
  }

  async #continueWith(message) {
    if (this.running) return;
    this.messages.push(message);
    await this.#answer();
  }

  #answer() {
    this.ended = this.#ask();
    return this.ended;
  }

  async #ask() {
    const { model, system, parameters } = this.conversation;
    const sent = this.messages.map(asSent);
    if (system.trim()) sent.unshift({ role: 'system', content: system });
    const answer = emptyAnswer(model);
    this.messages.push(answer);
    const running = (this.running = new AbortController());
    const begun = performance.now();
    this.#changed();
    try {
      const body = { ...requestFields(parameters), model, messages: sent };
      for await (const chunk of this.endpoint.chat(body, running.signal)) {
        addChunk(answer, chunk);
        const now = performance.now();
        if (answer.content || answer.reasoning_content || answer.tool_calls) answer.about.first ??= (now - begun) / 1000;
        this.dispatchEvent(new Event('grow'));
        if (now - this.saved > SAVE_EVERY) this.#save();
      }
    } catch (error) {
      if (running.signal.aborted) answer.about.end = 'stopped';
      else answer.about.error = error.message;
    }
    answer.about.seconds = (performance.now() - begun) / 1000;
    this.running = null;
    this.#changed();
  }

  #changed() {
    this.conversation.updated = Date.now();
    this.#save();
    this.dispatchEvent(new Event('change'));
  }

  #save() {
    this.saved = performance.now();
    this.saveAs(this.conversation);
  }
}
