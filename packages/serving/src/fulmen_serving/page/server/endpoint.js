/** An OpenAI-compatible server: where it is, with which key it is asked, and what it refuses. */

import { serverEvents } from './sse.js';

/** A server said no, or nobody answered (status 0). */
export class ServerError extends Error {
  constructor(message, { status = 0, code = '', retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

export class Endpoint {
  /**
   * @param {string} base the server's root, with or without /v1
   * @param {Object} key
   * @param {() => string} key.read the key to send; empty sends none
   * @param {(reason: string) => Promise<boolean>} [key.ask] asks the user for one, with what the server said of the last; false:
   *   there is none
   */
  constructor(base, { read = () => '', ask = async () => false } = {}) {
    this.base = `${base.trim().replace(/\/+$/, '').replace(/\/v1$/, '')}/`;
    this.readKey = read;
    this.askKey = ask;
  }

  /** Ask for `path`; a refusal is thrown. A missing or wrong key is asked for, and the request is sent again. */
  async request(path, { method = 'GET', body, signal } = {}) {
    for (;;) {
      const key = this.readKey();
      const headers = {};
      if (key) headers.Authorization = `Bearer ${key}`;
      if (body !== undefined) headers['Content-Type'] = 'application/json';
      let response;
      try {
        response = await fetch(this.base + path, {
          method, headers, signal, credentials: 'omit', body: body === undefined ? undefined : JSON.stringify(body),
        });
      } catch (error) {
        if (signal?.aborted) throw error;
        throw new ServerError(String(error.message));
      }
      if (response.ok) return response;
      const refusal = await refusalOf(response);
      if (![401, 403].includes(response.status) || !(await this.askKey(key ? refusal.message : ''))) throw refusal;
    }
  }

  /** Ask for a JSON object. */
  async json(path, options) {
    return (await this.request(path, options)).json();
  }

  /** Return the ids of the models that are served. */
  async models(options) {
    return (await this.json('v1/models', options)).data.map((model) => model.id);
  }

  /** Ask for a streamed chat completion and yield its chunks. */
  async *chat(body, signal) {
    const response = await this.request('v1/chat/completions', {
      method: 'POST', signal, body: { ...body, stream: true, stream_options: { include_usage: true } },
    });
    for await (const data of serverEvents(response.body)) {
      if (data === '[DONE]') return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ServerError(chunk.error.message, { status: 500, code: chunk.error.code });
      yield chunk;
    }
  }
}

async function refusalOf(response) {
  let error = {};
  try {
    const body = await response.json();
    error = body.error ?? body;
  } catch { /* no JSON: the status speaks for itself */ }
  return new ServerError(error.message ?? error.detail ?? `${response.status} ${response.statusText}`.trim(), {
    status: response.status, code: error.code ?? '', retryAfter: response.headers.get('retry-after'),
  });
}
