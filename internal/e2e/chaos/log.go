package chaos

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Log records what happens in a run, and the failed checks. It can be used by several goroutines.
type Log struct {
	Start time.Time

	mu       sync.Mutex
	lines    []string
	problems []string
	checks   int
}

// NewLog returns a log that starts now.
func NewLog() *Log { return &Log{Start: time.Now()} }

// Note adds a line.
func (l *Log) Note(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(text)
}

func (l *Log) add(text string) {
	l.lines = append(l.lines, fmt.Sprintf("%7.3f %s", time.Since(l.Start).Seconds(), text))
}

// mostProblems limits the failed checks that are kept.
const mostProblems = 10

// Wrong records a failed check.
func (l *Log) Wrong(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	l.add("WRONG: " + text)
	if len(l.problems) < mostProblems {
		l.problems = append(l.problems, text)
	}
}

// Check counts a check.
func (l *Log) Check() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.checks++
}

// Checks returns the number of checks.
func (l *Log) Checks() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.checks
}

// Problems returns the failed checks.
func (l *Log) Problems() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.problems)
}

// Failed reports whether a check has failed.
func (l *Log) Failed() bool { return len(l.Problems()) > 0 }

// Last returns the last line without its time.
func (l *Log) Last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) == 0 {
		return ""
	}
	_, text, _ := strings.Cut(strings.TrimSpace(l.lines[len(l.lines)-1]), " ")
	return text
}

// shown is the number of lines that String returns.
const shown = 250

// String returns the last lines.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines[max(0, len(l.lines)-shown):], "\n")
}
