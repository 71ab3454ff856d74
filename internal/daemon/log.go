package daemon

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/lmittmann/tint"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// LogFormats are the values that LogOptions.Format takes.
var LogFormats = []string{"auto", "tint", "text", "json", "journal"}

// LogOptions says where log lines go and how they look. Zero values are fine.
type LogOptions struct {
	Level      *slog.LevelVar // least level that is logged, changeable later; nil: info
	Format     string         // one of LogFormats; "" is auto
	Writer     io.Writer      // nil: standard error
	Identifier string         // SYSLOG_IDENTIFIER in the journal: the program's name

	Getenv        func(string) string // nil: os.Getenv
	IsTerminal    func() bool         // nil: ask the kernel about Writer
	JournalSocket string              // "": /run/systemd/journal/socket

	patience time.Duration // of the journal's socket; 0: journalPatience
}

// NewLogger makes the program's logger. Format auto is the journal when the
// service manager connected our standard error to it, tint when Writer is a
// terminal, else text. The closer ends the connection to the journal; the
// logger works on after it, through Writer. The one error is an unknown format.
func NewLogger(o LogOptions) (*slog.Logger, io.Closer, error) {
	if o.Level == nil {
		o.Level = new(slog.LevelVar)
	}
	if o.Writer == nil {
		o.Writer = os.Stderr
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.patience == 0 {
		o.patience = journalPatience
	}
	if o.JournalSocket == "" {
		o.JournalSocket = journalSocketPath
	}
	format := o.Format
	if format == "" || format == "auto" {
		format = o.detect()
	}
	switch format {
	case "journal":
		socket := &journalSocket{path: o.JournalSocket, patience: o.patience}
		return slog.New(newJournalHandler(o, socket)), socket, nil
	case "tint":
		h := tint.NewTextHandler(o.Writer, &tint.Options{
			Level:      o.Level,
			TimeFormat: "15:04:05.000",
			NoColor:    o.Getenv("NO_COLOR") != "" || o.Getenv("TERM") == "dumb",
		})
		message := func(s string) string { return text.Escape(clipMessage(s)) }
		return slog.New(tidy{h, message, plainKey, tintValue}), noCloser{}, nil
	case "text":
		h := slog.NewTextHandler(o.Writer, &slog.HandlerOptions{Level: o.Level})
		return slog.New(tidy{h, clipMessage, sameKey, textValue}), noCloser{}, nil
	case "json":
		h := slog.NewJSONHandler(o.Writer, &slog.HandlerOptions{Level: o.Level})
		return slog.New(tidy{h, clipMessage, sameKey, jsonValue}), noCloser{}, nil
	}
	return nil, nil, fmt.Errorf("log format %q is not known: use one of %s", o.Format, strings.Join(LogFormats, ", "))
}

type noCloser struct{}

func (noCloser) Close() error { return nil }

func (o LogOptions) detect() string {
	file, _ := o.Writer.(*os.File)
	if file != nil && isJournalStream(file, o.Getenv("JOURNAL_STREAM")) {
		return "journal"
	}
	terminal := o.IsTerminal
	if terminal == nil {
		terminal = func() bool { return file != nil && term.IsTerminal(int(file.Fd())) }
	}
	if terminal() {
		return "tint"
	}
	return "text"
}

// ErrorPrefix is what makes a line on w an error in the journal, when w is the
// standard error that systemd has given the process (sd-daemon(3)). It is for
// what is said before there is a logger; otherwise it would be of no priority
// that anybody looks for.
func ErrorPrefix(w io.Writer, getenv func(string) string) string {
	if file, ok := w.(*os.File); ok && isJournalStream(file, getenv("JOURNAL_STREAM")) {
		return "<3>"
	}
	return ""
}

// isJournalStream reports whether stream, the value of JOURNAL_STREAM, names
// file by device and inode. The variable alone proves nothing: it is inherited
// by every child, also by one whose standard error goes elsewhere
// (systemd.exec(5)).
func isJournalStream(file *os.File, stream string) bool {
	dev, ino, found := strings.Cut(stream, ":")
	if !found {
		return false
	}
	wantDev, err1 := strconv.ParseUint(dev, 10, 64)
	wantIno, err2 := strconv.ParseUint(ino, 10, 64)
	var st unix.Stat_t
	if err1 != nil || err2 != nil || unix.Fstat(int(file.Fd()), &st) != nil {
		return false
	}
	return st.Dev == wantDev && st.Ino == wantIno
}
