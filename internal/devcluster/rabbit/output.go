package rabbit

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxOutput limits the output of a command that is kept (its end), in bytes. The API
// server accepts no object above 1.5 MiB.
const maxOutput = 64 << 10

// tail keeps the end of what is written to it. It is safe for concurrent use.
type tail struct {
	mu   sync.Mutex
	text []byte
	when time.Time // of the last piece
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.when = time.Now()
	t.text = append(t.text, p...)
	if n := len(t.text) - maxOutput; n > 0 {
		t.text = append(t.text[:0], t.text[n:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ToValidUTF8(string(t.text), "\uFFFD")
}

// progress is the progress according to the output.
type progress struct {
	last    string
	when    time.Time
	percent int64 // -1: unknown
	figures map[string]any
}

var (
	copiedLine = regexp.MustCompile(`Copied .*\(([0-9]{1,3})%\)`)
	figureLine = regexp.MustCompile(`(?m)^ *(Seconds|Items|Directories|Files|Links|Data|Rate): (.*)$`)
)

func (t *tail) progress() progress {
	t.mu.Lock()
	text, when := bytes.Clone(t.text), t.when
	t.mu.Unlock()
	p := progress{when: when, percent: -1, figures: map[string]any{}}
	lines := strings.SplitAfter(strings.ToValidUTF8(string(text), "\uFFFD"), "\n")
	for i := len(lines) - 1; i >= 0 && p.percent < 0; i-- {
		if p.last == "" {
			p.last = strings.TrimSuffix(lines[i], "\n")
		}
		if match := copiedLine.FindStringSubmatch(lines[i]); match != nil {
			p.percent, _ = strconv.ParseInt(match[1], 10, 32)
			p.last = strings.TrimSuffix(lines[i], "\n") // not the figures after it
		}
	}
	for _, match := range figureLine.FindAllStringSubmatch(string(text), -1) {
		name, value := strings.ToLower(match[1]), match[2]
		switch name {
		case "seconds", "data", "rate":
			p.figures[name] = strings.ToValidUTF8(value, "\uFFFD")
		default:
			if n, err := strconv.ParseInt(value, 10, 32); err == nil {
				p.figures[name] = n
			}
		}
	}
	return p
}

// write sets status.commandStatus.
func (p progress) write(status map[string]any, elapsed time.Duration) {
	command, _ := status["commandStatus"].(map[string]any)
	if command == nil {
		command = map[string]any{}
	}
	command["elapsedTime"] = elapsed.Truncate(time.Millisecond).String()
	if !p.when.IsZero() {
		command["lastMessage"], command["lastMessageTime"] = p.last, stamp(p.when)
	}
	if p.percent >= 0 {
		command["progress"] = p.percent
	}
	for name, value := range p.figures {
		command[name] = value
	}
	status["commandStatus"] = command
}
