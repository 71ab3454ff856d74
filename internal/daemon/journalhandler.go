package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// maxEntry bounds one journal entry, in bytes; fields beyond it are left out.
const maxEntry = 1 << 20

// journalHandler is a slog.Handler that speaks the journal's native protocol:
// every attribute is a field that `journalctl KEY=value` selects by.
type journalHandler struct {
	level      slog.Leveler
	identifier string
	out        *journalOutput
	groups     []string
	fields     []field // of WithAttrs, ready to send
}

// journalOutput is shared by all handlers derived from one.
type journalOutput struct {
	socket interface{ Send([]byte) error }

	mu       sync.Mutex
	fallback io.Writer
	failing  bool // the reason for using fallback has been told
}

func newJournalHandler(o LogOptions, socket *journalSocket) *journalHandler {
	return &journalHandler{
		level:      o.Level,
		identifier: o.Identifier,
		out:        &journalOutput{socket: socket, fallback: o.Writer},
	}
}

func (h *journalHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level.Level()
}

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	derived := *h
	derived.fields = h.fields[:len(h.fields):len(h.fields)]
	for _, a := range attrs {
		derived.fields = appendFields(derived.fields, h.groups, a)
	}
	return &derived
}

func (h *journalHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	derived := *h
	derived.groups = append(h.groups[:len(h.groups):len(h.groups)], name)
	return &derived
}

func (h *journalHandler) Handle(_ context.Context, r slog.Record) error {
	fields := h.fields[:len(h.fields):len(h.fields)]
	r.Attrs(func(a slog.Attr) bool {
		fields = appendFields(fields, h.groups, a)
		return true
	})
	priority := journalPriority(r.Level)
	// journalctl shows a message with control characters as "blob data".
	message := appendTail([]byte(text.Escape(clip(r.Message, maxValue))), fields)

	entry := make([]byte, 0, 512)
	entry = appendJournalField(entry, "PRIORITY", strconv.Itoa(priority))
	if h.identifier != "" {
		entry = appendJournalField(entry, "SYSLOG_IDENTIFIER", h.identifier)
	}
	entry = appendJournalField(entry, "MESSAGE", string(message))
	for _, f := range fields {
		if len(entry)+len(f.value) <= maxEntry {
			entry = appendJournalField(entry, f.name, f.value)
		}
	}
	return h.out.write(priority, message, entry)
}

// write sends the entry, or the line to the fallback when the journal does not
// take it. The prefix <N> is understood by the service manager's stream, so the
// priority survives (sd-daemon(3)).
func (o *journalOutput) write(priority int, message, entry []byte) error {
	err := o.socket.Send(entry)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil {
		o.failing = false
		return nil
	}
	var line bytes.Buffer
	if !o.failing && !errors.Is(err, errJournalClosed) {
		fmt.Fprintf(&line, "<4>cannot reach the journal, log lines go to standard error without their fields: %s\n", text.Escape(err.Error()))
	}
	o.failing = true
	fmt.Fprintf(&line, "<%d>%s\n", priority, message)
	_, werr := o.fallback.Write(line.Bytes())
	return werr
}

// journalPriority maps levels to syslog(3) priorities: debug 7, info 6, between
// info and warn 5 (notice), warn 4, error 3, far above error 2 (critical).
func journalPriority(l slog.Level) int {
	switch {
	case l >= slog.LevelError+4:
		return 2
	case l >= slog.LevelError:
		return 3
	case l >= slog.LevelWarn:
		return 4
	case l > slog.LevelInfo:
		return 5
	case l == slog.LevelInfo:
		return 6
	default:
		return 7
	}
}
