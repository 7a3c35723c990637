// Brings the cited passage into view and gives it the focus, so that reading goes on from there.

const passage = document.getElementById("passage");
if (passage) {
  passage.scrollIntoView({ block: "center" });
  passage.focus({ preventScroll: true });
}
