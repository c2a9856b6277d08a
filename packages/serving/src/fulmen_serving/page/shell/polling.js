/** Asking again and again while somebody looks. */

/**
 * Call `ask` at once and then every `milliseconds`, one call at a time, until `left`; not while the page is hidden.
 * @param {() => Promise<boolean|void>} ask false ends it
 */
export async function poll(ask, milliseconds, left) {
  while (!left.aborted) {
    if (document.visibilityState === 'visible' && (await ask()) === false) return;
    await new Promise((resolve) => setTimeout(resolve, milliseconds));
  }
}
