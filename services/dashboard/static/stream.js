// Follows a job's events. Reconnects by itself after the last event seen, with growing pauses, and holds no connection while hidden.

const KINDS = [
  "queued",
  "started",
  "resumed",
  "phase",
  "estimate",
  "epoch",
  "made_from",
  "study",
  "supernet_awaited",
  "supernet_found",
  "room_awaited",
  "room_found",
  "generation",
  "finals",
  "finalist",
  "finalist_diverged",
  "soup",
  "soup_tested",
  "cancel_requested",
  "retrained",
  "pause_requested",
  "paused",
  "resume_requested",
  "requeued",
  "succeeded",
  "failed",
  "cancelled",
];

/** Call `onEvent(kind, data)` for every event numbered above `after`, once, in order; `onState` gets live, reconnecting or paused. */
export function follow(path, after, onEvent, onState) {
  let last = after;
  let source = null;
  let timer = 0;
  let pause = 1000;

  const close = () => {
    clearTimeout(timer);
    source?.close();
    source = null;
  };
  const receive = (message) => {
    const { sequence, kind, data } = JSON.parse(message.data);
    if (sequence <= last) return;
    last = sequence;
    onEvent(kind, data);
  };
  const open = () => {
    close();
    source = new EventSource(`${path}?after=${last}`);
    source.onopen = () => {
      pause = 1000;
      onState("live");
    };
    source.onerror = () => {
      close();
      onState("reconnecting");
      timer = setTimeout(open, pause);
      pause = Math.min(pause * 2, 30000);
    };
    for (const kind of KINDS) source.addEventListener(kind, receive);
  };

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) return open();
    close();
    onState("paused");
  });
  if (!document.hidden) open();
}
