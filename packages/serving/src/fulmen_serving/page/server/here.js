/** This page's own server, as an ordinary caller and as its administrator. Keys live as long as the browser's tab. */

import { askKey } from '../shell/key_dialog.js';
import { keep, kept } from '../shell/storage.js';
import { Endpoint } from './endpoint.js';

const ROOT = new URL('../..', import.meta.url).href;

const keyUnder = (name) => () => kept(name, '', sessionStorage);

function asking(name, kind) {
  return async (reason) => {
    const key = await askKey(kind, reason);
    if (key) keep(name, key, sessionStorage);
    return Boolean(key);
  };
}

/** As a caller of the API. */
export const here = new Endpoint(ROOT, { read: keyUnder('fulmen.key'), ask: asking('fulmen.key', 'api') });

/** As its administrator. */
export const admin = new Endpoint(ROOT, { read: keyUnder('fulmen.admin'), ask: asking('fulmen.admin', 'admin') });

/** Send `key` from now on. */
export const useKey = (key) => keep('fulmen.key', key, sessionStorage);

/** Forget both keys. */
export function forgetKeys() {
  for (const name of ['fulmen.key', 'fulmen.admin']) keep(name, '', sessionStorage);
}

/** Whether a key is kept. */
export const hasKeys = () => ['fulmen.key', 'fulmen.admin'].some((name) => keyUnder(name)() !== '');
