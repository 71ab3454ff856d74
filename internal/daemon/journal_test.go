package daemon

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// journald replaces the socket of the journal.
type journald struct {
	t    *testing.T
	path string
	conn *net.UnixConn
}

func startJournald(t *testing.T) *journald {
	t.Helper()
	j := &journald{t: t, path: filepath.Join(t.TempDir(), "socket")}
	j.listen()
	t.Cleanup(func() { j.conn.Close() })
	return j
}

func (j *journald) listen() {
	j.t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: j.path, Net: "unixgram"})
	if err != nil {
		j.t.Fatal(err)
	}
	j.conn = conn
}

func (j *journald) stop() {
	j.conn.Close()
	os.Remove(j.path)
}

// logger returns a logger that writes to j, and its fallback for standard error.
func (j *journald) logger() (*slog.Logger, *buffer) {
	j.t.Helper()
	return j.patientLogger(time.Minute) // long, for busy machines
}

func (j *journald) patientLogger(patience time.Duration) (*slog.Logger, *buffer) {
	j.t.Helper()
	var fallback buffer
	level := new(slog.LevelVar)
	level.Set(slog.LevelDebug)
	log, closer, err := newLogger(LogOptions{Format: "journal", Writer: &fallback, Level: level,
		Identifier: "clientmountd", journal: j.path, patience: patience})
	if err != nil {
		j.t.Fatal(err)
	}
	j.t.Cleanup(func() { closer.Close() })
	return log, &fallback
}

// entry reads one entry. sealed reports whether it came as a memory file.
func (j *journald) entry() (fields map[string][]string, sealed bool) {
	j.t.Helper()
	j.conn.SetReadDeadline(time.Now().Add(time.Minute))
	data, oob := make([]byte, 1<<20), make([]byte, 128)
	n, oobn, _, _, err := j.conn.ReadMsgUnix(data, oob)
	if err != nil {
		j.t.Fatal(err)
	}
	data = data[:n]
	if oobn > 0 {
		data, sealed = j.memfd(oob[:oobn]), true
	}
	return parseEntry(j.t, data), sealed
}

func (j *journald) memfd(oob []byte) []byte {
	j.t.Helper()
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		j.t.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		j.t.Fatalf("%v, %v", fds, err)
	}
	file := os.NewFile(uintptr(fds[0]), "memfd")
	defer file.Close()
	seals, err := unix.FcntlInt(file.Fd(), unix.F_GET_SEALS, 0)
	if want := unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL; err != nil || seals != want {
		j.t.Errorf("seals %x, want %x: %v", seals, want, err)
	}
	data, err := io.ReadAll(io.NewSectionReader(file, 0, 1<<30))
	if err != nil {
		j.t.Fatal(err)
	}
	return data
}

// parseEntry parses the native protocol as strictly as the journal does.
func parseEntry(t *testing.T, data []byte) map[string][]string {
	t.Helper()
	fields := map[string][]string{}
	for len(data) > 0 {
		line, rest, ok := bytes.Cut(data, []byte("\n"))
		if !ok {
			t.Fatalf("entry ends in the middle of %q", line)
		}
		name, value, assigned := bytes.Cut(line, []byte("="))
		data = rest
		if !assigned {
			size := int(binary.LittleEndian.Uint64(data))
			value, data = data[8:8+size], data[8+size:]
			if data[0] != '\n' {
				t.Fatalf("%s: no line feed after the value", name)
			}
			data = data[1:]
		}
		if len(name) == 0 || len(name) > 64 || name[0] == '_' || name[0] >= '0' && name[0] <= '9' ||
			strings.Trim(string(name), "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
			t.Errorf("the journal would drop field %q", name)
		}
		fields[string(name)] = append(fields[string(name)], string(value))
	}
	return fields
}

func TestJournalEntry(t *testing.T) {
	j := startJournald(t)
	log, fallback := j.logger()
	log.With("clientmount", "default-job7-0-computes").Info("mounted file system", EventID(testEvent),
		"path", "/mnt/nnf/job7", "duration", 41237*time.Microsecond, "limit", 90*time.Second,
		"error", errors.New("two\nlines"), slog.Group("source", "nqn-name", "a b", slog.Group("deep", "x", 1)))
	got, _ := j.entry()
	want := map[string][]string{
		"PRIORITY":          {"6"},
		"SYSLOG_IDENTIFIER": {"clientmountd"},
		"MESSAGE_ID":        {testEvent.ID},
		"EVENT":             {"mounted"},
		"MESSAGE": {`mounted file system clientmount=default-job7-0-computes path=/mnt/nnf/job7 duration=41ms limit=1m30s ` +
			`error="two\nlines" source.nqn-name="a b" source.deep.x=1`},
		"CLIENTMOUNT":     {"default-job7-0-computes"},
		"PATH":            {"/mnt/nnf/job7"},
		"DURATION_MS":     {"41.237"},
		"LIMIT":           {"1m30s"},
		"ERROR":           {"two\nlines"},
		"SOURCE_NQN_NAME": {"a b"},
		"SOURCE_DEEP_X":   {"1"},
	}
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
	if fallback.Len() > 0 {
		t.Errorf("standard error: %q", fallback)
	}
}

func TestJournalPriorities(t *testing.T) {
	j := startJournald(t)
	log, _ := j.logger()
	for _, c := range []struct {
		level slog.Level
		want  string
	}{
		{slog.LevelDebug, "7"}, {slog.LevelInfo, "6"}, {slog.LevelInfo + 2, "5"}, {slog.LevelWarn, "4"},
		{slog.LevelError, "3"}, {slog.LevelError + 4, "2"},
	} {
		log.Log(t.Context(), c.level, "x")
		if fields, _ := j.entry(); fields["PRIORITY"][0] != c.want {
			t.Errorf("%s: priority %s, want %s", c.level, fields["PRIORITY"], c.want)
		}
	}
	if log.Enabled(t.Context(), slog.LevelDebug-1) {
		t.Error("a record below the level is enabled")
	}
}

func TestJournalGroupsAndAttrsDoNotMix(t *testing.T) {
	j := startJournald(t)
	log, _ := j.logger()
	// With three attributes, the slice that both extend has capacity for a fourth.
	base := log.With("a", 1).WithGroup("").WithGroup("g").With("b", 2, "b2", 2)
	one, two := base.With("c", 3), base.With("d", 4)
	one.Info("one", "e", 5)
	two.Info("two")
	first, _ := j.entry()
	second, _ := j.entry()
	if got := first["MESSAGE"][0]; got != "one a=1 g.b=2 g.b2=2 g.c=3 g.e=5" {
		t.Errorf("first: %q", got)
	}
	if got := second["MESSAGE"][0]; got != "two a=1 g.b=2 g.b2=2 g.d=4" {
		t.Errorf("second: %q", got)
	}
	if first["G_B"] == nil || first["A"] == nil || second["G_C"] != nil {
		t.Errorf("fields: %q, %q", first, second)
	}
}

func TestFieldName(t *testing.T) {
	for _, c := range []struct {
		path []string
		want string
	}{
		{[]string{"mount_path"}, "MOUNT_PATH"},
		{[]string{"source", "path"}, "SOURCE_PATH"},
		{[]string{"apiVersion"}, "APIVERSION"},
		{[]string{"_hidden"}, "HIDDEN"}, // names with _ are reserved for trusted fields of the journal
		{[]string{"__uid"}, "UID"},
		{[]string{"9p"}, "F_9P"},
		{[]string{"größe"}, "GR__E"},
		{[]string{"ä"}, "FIELD"},
		{[]string{""}, "FIELD"},
		{[]string{"a=b\nc"}, "A_B_C"},
		{[]string{"message"}, "F_MESSAGE"},
		{[]string{"priority"}, "F_PRIORITY"},
		{[]string{"message", "id"}, "F_MESSAGE_ID"},
		{[]string{"syslog_identifier"}, "F_SYSLOG_IDENTIFIER"},
		{[]string{strings.Repeat("x", 100)}, strings.Repeat("X", 64)},
	} {
		if got := fieldName(c.path); got != c.want {
			t.Errorf("fieldName(%q) = %q, want %q", c.path, got, c.want)
		}
	}
}

func TestJournalHostileText(t *testing.T) {
	j := startJournald(t)
	log, _ := j.logger()
	for _, text := range append(hostile, "x\nPRIORITY=0\nMESSAGE=forged") {
		log.Info(text, "value", text, "bytes", []byte(text), text, "key")
		fields, _ := j.entry()
		if len(fields["PRIORITY"]) != 1 || len(fields["MESSAGE"]) != 1 || fields["PRIORITY"][0] != "6" {
			t.Errorf("%q forged a field: %q", text, fields)
		}
		if fields["VALUE"][0] != text || fields["BYTES"][0] != text {
			t.Errorf("%q became %q, %q", text, fields["VALUE"], fields["BYTES"])
		}
		safeOnTerminal(t, "journal", fields["MESSAGE"][0]+"\n")
	}
}

func TestJournalTailIsShort(t *testing.T) {
	j := startJournald(t)
	log, _ := j.logger()
	long := strings.Repeat("y", 3000)
	log.Error("failed", "output", long, "error", long, "more", "z")
	fields, _ := j.entry()
	message := fields["MESSAGE"][0]
	if len(message) > 900 || !strings.Contains(message, "more=z") {
		t.Errorf("message of %d bytes: %q", len(message), message)
	}
	if n := strings.Count(message, "y"); n != maxTailValue+maxTailCause+len("yy") { // two notes say "bytes"
		t.Errorf("%d bytes of the values", n)
	}
	if fields["OUTPUT"][0] != long || fields["ERROR"][0] != long {
		t.Error("the fields do not have the complete text")
	}

	var many []any
	for i := range 500 {
		many = append(many, "key"+strconv.Itoa(i), "some value")
	}
	log.Info("many", many...)
	fields, _ = j.entry()
	if message := fields["MESSAGE"][0]; len(message) > 1000 || !strings.HasSuffix(message, " …") {
		t.Errorf("message of %d bytes: %q", len(message), message)
	}
	if len(fields) > maxFields+3 {
		t.Errorf("%d fields", len(fields))
	}
}

func TestJournalLargeEntry(t *testing.T) {
	j := startJournald(t)
	log, fallback := j.logger()
	var args []any
	for i := range 40 { // 40 × 64 KiB is more than a datagram and more than maxEntry
		args = append(args, "output_"+strconv.Itoa(i), strings.Repeat("z", 100_000))
	}
	log.Info("large", args...)
	fields, sealed := j.entry()
	if !sealed {
		t.Errorf("not sent as a memory file; standard error: %q", fallback)
	}
	size := 0
	for name, values := range fields {
		size += len(values[0])
		if strings.HasPrefix(name, "OUTPUT_") && len(values[0]) > maxValue+100 {
			t.Errorf("%s: %d bytes", name, len(values[0]))
		}
	}
	if size > maxEntry || size < maxEntry/2 {
		t.Errorf("entry of %d bytes", size)
	}
	if !strings.HasSuffix(fields["OUTPUT_0"][0], "z… (100000 bytes)") {
		t.Error("the shortened value has no note")
	}
}

func TestJournalRestart(t *testing.T) {
	j := startJournald(t)
	log, fallback := j.logger()
	log.Info("before")
	j.entry()

	j.stop()
	log.Error("first\nlost", "path", "/mnt/a")
	log.Info("second")
	lines := strings.Split(fallback.String(), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[0], "<4>cannot write to the journal") ||
		lines[1] != `<3>first\nlost path=/mnt/a` || lines[2] != "<6>second" {
		t.Errorf("standard error: %q", lines)
	}

	fallback.Reset()
	j.listen()
	log.Info("after")
	if fields, _ := j.entry(); fields["MESSAGE"][0] != "after" {
		t.Errorf("got %q", fields)
	}
	if fallback.Len() > 0 {
		t.Errorf("standard error: %q", fallback)
	}

	j.stop() // the warning is logged again
	log.Info("third")
	if got := fallback.String(); strings.Count(got, "<4>") != 1 {
		t.Errorf("standard error: %q", got)
	}
}

func TestJournalHangs(t *testing.T) {
	j := startJournald(t)
	log, fallback := j.patientLogger(50 * time.Millisecond)
	start := time.Now()
	for i := 0; fallback.Len() == 0; i++ { // fills the queue of the receiver, which does not read
		if i > 10_000 {
			t.Fatal("the queue is never full")
		}
		log.Info("x")
	}
	if d := time.Since(start); d < 40*time.Millisecond || d > 10*time.Second {
		t.Errorf("gave up after %s", d)
	}
	if !strings.Contains(fallback.String(), "<6>x") {
		t.Errorf("standard error: %q", fallback)
	}
}

func TestJournalClosed(t *testing.T) {
	j := startJournald(t)
	var fallback buffer
	log, closer, err := newLogger(LogOptions{Format: "journal", Writer: &fallback, journal: j.path})
	if err != nil {
		t.Fatal(err)
	}
	closer.Close()
	log.Info("late")
	if got := fallback.String(); got != "<6>late\n" {
		t.Errorf("standard error: %q", got)
	}
}

func TestJournalConcurrently(t *testing.T) {
	j := startJournald(t)
	log, fallback := j.logger()
	t.Cleanup(func() {
		if fallback.Len() > 0 {
			t.Errorf("standard error: %q", fallback)
		}
	})
	const writers, lines = 4, 50
	var wg sync.WaitGroup
	// With three attributes and groups, the slices that all writers share have spare capacity.
	log = log.With("a", 1, "b", 2, "c", 3).WithGroup("x").WithGroup("y").WithGroup("z")
	for w := range writers {
		wg.Go(func() {
			for i := range lines {
				log.Info("line", slog.Group("writer"+strconv.Itoa(w), "i", i))
			}
		})
	}
	seen := map[string]bool{}
	for range writers * lines {
		fields, _ := j.entry()
		message := fields["MESSAGE"][0]
		if !strings.HasPrefix(message, "line a=1 b=2 c=3 x.y.z.writer") {
			t.Errorf("got %q", message)
		}
		seen[message] = true
	}
	wg.Wait()
	if len(seen) != writers*lines {
		t.Errorf("%d different entries, want %d", len(seen), writers*lines)
	}
}

func BenchmarkJournal(b *testing.B) {
	h := newJournalHandler(LogOptions{Level: new(slog.LevelVar), Writer: io.Discard}, nil)
	h.out.socket = discard{}
	log := slog.New(h).With("clientmount", "default-job7-0-computes", "workflow", "job7")
	b.ReportAllocs()
	for b.Loop() {
		log.Info("mounted file system", EventID(testEvent), "path", "/mnt/nnf/job7", "duration", 41*time.Millisecond)
	}
}

type discard struct{}

func (discard) Send([]byte) error { return nil }
