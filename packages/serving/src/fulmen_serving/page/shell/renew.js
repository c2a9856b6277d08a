/** Showing new figures in elements that are there: what has the focus, is selected or scrolled remains so. */

/**
 * Make the children of `place` like `nodes`, which have no listeners. Alike ones are changed, others replaced.
 * @param {Element} place
 * @param {Node[]} nodes
 */
export function renew(place, nodes) {
  const present = [...place.childNodes];
  nodes.forEach((node, index) => {
    const old = present[index];
    if (old === undefined) place.append(node);
    else if (old.nodeName !== node.nodeName) old.replaceWith(node);
    else if (node.nodeType === Node.TEXT_NODE) {
      if (old.data !== node.data) old.data = node.data;
    } else {
      for (const { name, value } of node.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
      for (const { name } of [...old.attributes]) if (!node.hasAttribute(name)) old.removeAttribute(name);
      renew(old, [...node.childNodes]);
    }
  });
  for (const left of present.slice(nodes.length)) left.remove();
}
