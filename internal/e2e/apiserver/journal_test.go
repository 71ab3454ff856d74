package apiserver

import (
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// What the daemon logs when the server is lost and when it is back.
const (
	lostText = "cannot follow the API server"
	backText = "API server answers again"
)

func message(l lab.LogLine) string { m, _ := l.Fields["msg"].(string); return m }

// said waits for a log line with all the texts, past or future.
func (s *env) said(limit time.Duration, texts ...string) lab.LogLine {
	s.t.Helper()
	l, err := s.daemon.WaitLog(s.Context(limit), func(l lab.LogLine) bool { return l.Has(texts...) })
	if err != nil {
		s.t.Fatalf("no log line with %q: %v", texts, err)
	}
	return l
}

// lines returns the log lines about losing the server and finding it again.
func (s *env) lines() (list []lab.LogLine) {
	for _, l := range s.daemon.Log() {
		if m := message(l); strings.HasPrefix(m, lostText) || strings.HasPrefix(m, backText) {
			list = append(list, l)
		}
	}
	return list
}

// lost waits until the daemon has noticed n times in all that the server is
// away.
func (s *env) lost(n int) {
	s.t.Helper()
	wait.Within(s.t, soon, "the daemon notices that the server is away", func() bool { return s.count(lostText) >= n })
}

// back waits until it has noticed n times in all that the server is there.
func (s *env) back(n int) {
	s.t.Helper()
	wait.Within(s.t, resume, "the daemon notices that the server is back", func() bool { return s.count(backText) >= n })
	wait.Within(s.t, soon, "the status line follows", s.answers)
}

// answers tells whether the status line says that all is well.
func (s *env) answers() bool { return strings.HasSuffix(s.status(), "; API server answers") }

func (s *env) count(text string) (n int) {
	for _, l := range s.lines() {
		if strings.HasPrefix(message(l), text) {
			n++
		}
	}
	return n
}

// story fails unless the lines about the server are exactly these: each names
// the text of one, and "back" stands for its return.
func (s *env) story(want ...string) {
	s.t.Helper()
	got := s.lines()
	fits := len(got) == len(want)
	for i := 0; fits && i < len(want); i++ {
		if want[i] == "back" {
			fits = strings.HasPrefix(message(got[i]), backText)
		} else {
			fits = strings.HasPrefix(message(got[i]), lostText) && strings.Contains(got[i].Text, want[i])
		}
	}
	if !fits {
		var texts []string
		for _, l := range got {
			texts = append(texts, strings.TrimSpace(l.Text))
		}
		s.t.Errorf("the log tells\n%s\nand not %q", strings.Join(texts, "\n"), want)
	}
}

// status is the line that the service manager shows now.
func (s *env) status() string {
	line := ""
	for _, n := range s.daemon.Notices() {
		if v, ok := n.Value("STATUS"); ok {
			line = v
		}
	}
	return line
}

// showsTrouble waits until the status line says since when and why.
func (s *env) showsTrouble(texts ...string) {
	s.t.Helper()
	wait.Within(s.t, soon, "a status line with "+strings.Join(texts, ", "), func() bool {
		return lab.HasAll(s.status(), append(texts, "API server has not answered since ")...)
	})
}

// hold keeps a trouble up for a while, during which the daemon must not say
// anything new about the server.
func (s *env) hold(d time.Duration) {
	s.t.Helper()
	before := len(s.lines())
	select {
	case <-time.After(d):
	case <-s.daemon.Done():
		s.t.Fatal("the daemon has died")
	}
	if now := s.lines(); len(now) != before {
		s.t.Errorf("%d more log lines while nothing changed, such as %s", len(now)-before, now[len(now)-1].Text)
	}
}
