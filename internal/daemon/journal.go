package daemon

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// maxEntry limits one journal entry, in bytes. Further fields are dropped.
const maxEntry = 1 << 20

// journalHandler is a slog.Handler for the native protocol of the journal. Each
// attribute becomes a field, which `journalctl KEY=value` can match.
type journalHandler struct {
	level      slog.Leveler
	identifier string
	out        *journalOutput
	groups     []string
	fields     []field // from WithAttrs, ready to send
}

// journalOutput is shared by all handlers that are derived from one handler.
type journalOutput struct {
	socket interface{ Send([]byte) error }

	mu       sync.Mutex
	fallback io.Writer
	failing  bool // the reason for using fallback has been logged
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

// write sends the entry to the journal or, if that fails, writes the message to the
// fallback. The service manager reads the prefix <N> as the priority (sd-daemon(3)).
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
		fmt.Fprintf(&line, "<4>cannot write to the journal; logging to standard error without fields: %s\n", text.Escape(err.Error()))
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

// durationKey is the attribute for the duration of the logged operation.
const durationKey = "duration"

const (
	maxFields     = 128 // per record; the journal accepts 1024
	maxGroupDepth = 8
	maxName       = 64  // the journal drops fields with longer names
	maxTail       = 900 // bytes of the readable tail of MESSAGE
	maxTailValue  = 160 // bytes of one value in it…
	maxTailCause  = 500 // …or of an error or a hint
)

// field is one attribute, ready for the journal.
type field struct {
	name  string // name in the journal: CLIENTMOUNT
	label string // name in the message: clientmount
	value string // full value, at most maxValue bytes plus a note
	short string // value in the tail of MESSAGE; "": the same
}

// appendFields adds attribute a of these groups to fields. Groups are flattened:
// group "source" with key "path" becomes SOURCE_PATH.
func appendFields(fields []field, groups []string, a slog.Attr) []field {
	if len(fields) >= maxFields || len(groups) > maxGroupDepth {
		return fields
	}
	if a.Value.Kind() == slog.KindLogValuer {
		if e, ok := a.Value.Any().(Event); ok {
			if e.Valid() {
				fields = append(fields, field{name: "MESSAGE_ID", value: e.ID})
			}
			return append(fields, field{name: "EVENT", value: e.Name})
		}
	}
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			groups = append(groups[:len(groups):len(groups)], a.Key)
		}
		for _, member := range v.Group() {
			fields = appendFields(fields, groups, member)
		}
		return fields
	}
	if a.Equal(slog.Attr{}) {
		return fields
	}
	path := append(groups[:len(groups):len(groups)], a.Key)
	f := field{name: fieldName(path), label: strings.Join(path, ".")}
	switch v.Kind() {
	case slog.KindDuration:
		f.short = shortDuration(v.Duration()).String()
		if a.Key == durationKey {
			f.name = fieldName(append(path, "MS"))
			f.value = strconv.FormatFloat(milliseconds(v.Duration()), 'f', -1, 64)
		} else {
			f.value = v.Duration().String()
		}
	case slog.KindTime:
		f.value = v.Time().Format(time.RFC3339Nano)
	default:
		f.value = clip(valueText(v), maxValue)
	}
	return append(fields, f)
}

// fieldName joins path to a name that the journal accepts
// (systemd.journal-fields(7)): A-Z, 0-9 and _, not starting with a digit or _, at
// most 64 bytes. Names of fields that this handler sets itself get a prefix.
func fieldName(path []string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, strings.Join(path, "_"))
	name = strings.TrimLeft(name, "_")
	switch {
	case name == "":
		return "FIELD"
	case name[0] >= '0' && name[0] <= '9':
		name = "F_" + name
	}
	switch name {
	case "MESSAGE", "MESSAGE_ID", "PRIORITY", "SYSLOG_IDENTIFIER":
		name = "F_" + name
	}
	return name[:min(len(name), maxName)]
}

// appendTail appends the fields to a message in the form key=value, so that
// journalctl shows them without options. It shortens them; the fields of the entry
// are complete.
func appendTail(b []byte, fields []field) []byte {
	start := len(b)
	for _, f := range fields {
		if f.label == "" {
			continue
		}
		value, limit := f.short, maxTailValue
		if value == "" {
			value = f.value
		}
		if f.label == "error" || f.label == "err" || f.label == "hint" {
			limit = maxTailCause
		}
		value = clip(value, limit)
		if len(b)-start+len(f.label)+len(value) > maxTail {
			return append(b, " …"...)
		}
		b = append(b, ' ')
		b = append(b, text.Escape(f.label)...)
		b = append(b, '=')
		if plain(value) {
			b = append(b, value...)
		} else {
			b = strconv.AppendQuote(b, value)
		}
	}
	return b
}

const journalSocketPath = "/run/systemd/journal/socket"

// journalPatience is long enough for a busy journal, and short enough that a hanging
// journal does not delay a mount.
const journalPatience = 500 * time.Millisecond

var errJournalClosed = errors.New("connection to the journal is closed")

// journalSocket sends entries to the journal in its native protocol
// (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/). The journal package of go-systemd
// has a fixed socket path, uses an unconnected socket, on which a poller cannot wait
// for a full receiver, and writes large entries to named files. journalSocket is
// connected, waits only for a short time, and passes large entries as sealed memory
// files. It needs no goroutine. It is safe for concurrent use.
type journalSocket struct {
	path     string
	patience time.Duration // maximum wait of one send for a hanging journal

	mu     sync.Mutex
	file   *os.File // nil: not connected
	closed bool
}

// Send sends one encoded entry. It reconnects after a restart of the journal. After
// any error the entry has not been accepted.
func (j *journalSocket) Send(entry []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return errJournalClosed
	}
	var err error
	for range 2 {
		if err = j.connect(); err != nil {
			return err
		}
		err = sendmsg(int(j.file.Fd()), entry, nil)
		if errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.ENOBUFS) {
			err = sendMemfd(int(j.file.Fd()), entry)
		}
		if err == nil || errors.Is(err, unix.EAGAIN) {
			break
		}
		j.disconnect()
	}
	if err != nil {
		return fmt.Errorf("send to %s: %w", j.path, err)
	}
	return nil
}

// Close closes the connection. Later calls of Send fail.
func (j *journalSocket) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	j.disconnect()
	return nil
}

func (j *journalSocket) connect() error {
	if j.file != nil {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket for the journal: %w", err)
	}
	// A hanging journal must not block the daemon.
	limit := unix.NsecToTimeval(int64(j.patience))
	if err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: j.path})
	}
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("connect to %s: %w", j.path, err)
	}
	j.file = os.NewFile(uintptr(fd), j.path)
	return nil
}

func (j *journalSocket) disconnect() {
	if j.file != nil {
		j.file.Close() // a datagram socket has no unsent data
		j.file = nil
	}
}

func sendmsg(fd int, p, oob []byte) error {
	for range 10 { // signals interrupt a send with a timeout
		err := unix.Sendmsg(fd, p, oob, nil, unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return unix.EINTR
}

// sendMemfd passes an entry that is too large for a datagram as a memory file.
// The journal requires all seals, because it maps the file.
func sendMemfd(socket int, entry []byte) error {
	fd, err := unix.MemfdCreate("journal-entry", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return fmt.Errorf("memory file: %w", err)
	}
	file := os.NewFile(uintptr(fd), "journal-entry")
	defer file.Close()
	if _, err = file.Write(entry); err != nil {
		return fmt.Errorf("memory file: %w", err)
	}
	seals := unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return fmt.Errorf("seal memory file: %w", err)
	}
	return sendmsg(socket, nil, unix.UnixRights(fd))
}

// appendJournalField encodes one field. A value with a line feed is sent with its
// length, so that it cannot forge further fields.
func appendJournalField(b []byte, name, value string) []byte {
	b = append(b, name...)
	if !strings.Contains(value, "\n") {
		b = append(b, '=')
	} else {
		b = append(b, '\n')
		b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
	}
	b = append(b, value...)
	return append(b, '\n')
}
