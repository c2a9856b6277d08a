/** The models that this page's server serves, asked for once. */

import { here } from './here.js';

let asked = null;

/** Return their ids. */
export function servedModels() {
  asked ??= here.models().catch((error) => {
    asked = null; // ask again another time
    throw error;
  });
  return asked;
}
