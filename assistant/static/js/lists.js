// Lists that htmx replaces as a whole: what polls ([data-poll]) and what people do may pass each other.

const RETRY_MS = 3000;
const underWay = new Map(); // id of a list: polls that were sent and have not ended
const wanted = new Set(); // ids of lists to be asked for once more

// Ask for the list `id` anew. What is under way may have been answered before the change.
export function refresh(id) {
  const list = document.getElementById(id);
  if (underWay.get(id)) wanted.add(id);
  else if (list) window.htmx.trigger(list.querySelector("[data-poll]") ?? list, "refresh");
}

// Nothing moves under an open question, an open list of choices, or a filter that is being typed.
function isBusy() {
  const { activeElement } = document;
  return (
    document.querySelector("dialog[open]") !== null ||
    activeElement?.id === "status-filter" ||
    (activeElement?.id === "name-filter" && activeElement.value !== activeElement.defaultValue)
  );
}

function makeUp() {
  if (isBusy()) return;
  const ids = [...wanted].filter((id) => !underWay.get(id));
  for (const id of ids) {
    wanted.delete(id);
    refresh(id);
  }
}

document.addEventListener("htmx:beforeRequest", (event) => {
  const { detail } = event;
  const { xhr, requestConfig, target } = detail;
  const { id } = target;
  if (!id) return;
  xhr.addEventListener("loadend", () => setTimeout(makeUp));
  if (!requestConfig.elt.matches("[data-poll]")) {
    // A poll may replace the list that a filter or a deletion was meant for: the new one is meant.
    beforeItsAnswer(xhr, () => {
      if (!detail.target.isConnected) detail.target = document.getElementById(id) ?? target;
    });
    return;
  }
  if (isBusy()) {
    event.preventDefault();
    wanted.add(id);
    return;
  }
  underWay.set(id, (underWay.get(id) ?? 0) + 1);
  // The other way round htmx drops the answer, which may be the newer one.
  beforeItsAnswer(xhr, () => !target.isConnected && wanted.add(id));
  xhr.addEventListener("loadend", () => {
    underWay.set(id, underWay.get(id) - 1);
    if (xhr.status === 0 || xhr.status >= 500) setTimeout(() => refresh(id), RETRY_MS);
  });
});

document.addEventListener("htmx:beforeSwap", ({ detail }) => {
  if (!detail.target.id || !detail.requestConfig.elt.matches("[data-poll]") || !isBusy()) return;
  detail.shouldSwap = false;
  wanted.add(detail.target.id);
});

// htmx listens to "load", which comes after this.
function beforeItsAnswer(xhr, act) {
  xhr.addEventListener("readystatechange", () => xhr.readyState === XMLHttpRequest.DONE && act());
}

document.addEventListener("close", makeUp, { capture: true });
document.addEventListener("focusout", () => setTimeout(makeUp));
