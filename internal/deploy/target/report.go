package target

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
)

// Report is how things stand on a node, as its probe says.
type Report struct {
	Arch        string
	Systemd     string // version; "": it does not run
	Files       map[string]FileState
	Contents    map[string]string // of units and drop-ins
	Units       map[string]Unit
	Packages    map[string]Installed // by name
	Owners      map[string]string    // package that a path belongs to
	Packaged    map[string]bool      // the program's unit is a package's
	Versions    map[string]string    // of programs
	Expiry      map[string]time.Time // until when tokens are good that say it; zero: they do not end
	BadExpiry   map[string]bool      // tokens whose expiry is no date
	Space       map[string]int64     // KiB free
	Statuses    map[string]Answered  // what programs answer of themselves
	Busy        bool                 // another run is at work there
	Interrupted bool                 // one was interrupted there
	Forgotten   bool                 // all was removed there, and the answer was never heard
	Pending     []string             // daemons that an interrupted one has not restarted
}

// FileState is what a file is. State is its SHA-256, or absent, folder, link or
// other.
type FileState struct{ State, Mode, Owner string }

// Answered is a program's answer to "status -o json", or the reason why it is missing.
type Answered struct {
	*systemd.Status
	Err error
}

// Installed is an installed package.
type Installed struct{ NEVRA, Header string }

// Unit is the state of a unit as "systemctl show" reports it.
type Unit struct {
	Load, Active, File string // LoadState, ActiveState, UnitFileState
	Status             string // StatusText: what the daemon reports, for people
}

func newReport() *Report {
	return &Report{
		Files: map[string]FileState{}, Contents: map[string]string{}, Units: map[string]Unit{}, Packages: map[string]Installed{},
		Owners: map[string]string{}, Packaged: map[string]bool{}, Versions: map[string]string{}, Expiry: map[string]time.Time{}, BadExpiry: map[string]bool{}, Space: map[string]int64{}, Statuses: map[string]Answered{},
	}
}

// lines reads what a script answers: fields of lines with tabs between. What a
// login shell says before the first line is not ours.
func lines(r io.Reader, each func(fields []string)) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		each(strings.Split(s.Text(), "\t"))
	}
	return s.Err()
}

// parseReport reads the answer of the probe.
func parseReport(in io.Reader) (*Report, error) {
	r := newReport()
	begun, ended := false, false
	var trouble *Problem
	err := lines(in, func(f []string) {
		switch {
		case f[0] == "nnf-deploy":
			begun = true
		case f[0] == "error" && len(f) >= 3:
			trouble = &Problem{Text: f[1], Hint: f[2]}
		case f[0] == "end":
			ended = true
		case begun && !ended:
			r.take(f)
		}
	})
	switch {
	case trouble != nil:
		return nil, trouble
	case err != nil:
		return nil, &Problem{Text: "its answer is not understood: " + err.Error()}
	case !begun:
		return nil, &Problem{Text: "it gives no answer", Hint: "does its login shell run commands?"}
	case !ended:
		return nil, &Problem{Text: "its answer is cut off", Hint: "run it again"}
	}
	return r, nil
}

// take takes one line over. A line that is not understood says nothing.
func (r *Report) take(f []string) {
	at := func(i int) string {
		if i < len(f) {
			return f[i]
		}
		return ""
	}
	switch f[0] {
	case "arch":
		r.Arch = at(1)
	case "systemd":
		r.Systemd = at(1)
	case "file":
		r.Files[at(4)] = FileState{at(1), at(2), at(3)}
	case "content":
		if data, err := base64.StdEncoding.DecodeString(at(2)); err == nil && word.MatchString(at(1)) {
			r.Contents[at(1)] = string(data)
		}
	case "claims":
		switch c, err := kube.Parse(at(2)); {
		case err == nil:
			r.Expiry[at(1)] = c.Expires
		case errors.Is(err, kube.ErrExpiry):
			r.BadExpiry[at(1)] = true
		}
	case "unit":
		data, _ := base64.StdEncoding.DecodeString(at(2)) // of a damaged answer nothing is known
		p := systemd.Properties(string(data))
		r.Units[at(1)] = Unit{p["LoadState"], p["ActiveState"], p["UnitFileState"], p["StatusText"]}
	case "package":
		one := Installed{at(2), at(3)}
		if other, twice := r.Packages[at(1)]; twice && other != one {
			one = Installed{NEVRA: other.NEVRA + ", " + one.NEVRA} // a transaction was killed: it is as neither of them
		}
		r.Packages[at(1)] = one
	case "owner":
		r.Owners[at(1)] = at(2)
	case "packaged":
		r.Packaged[at(1)] = true
	case "version":
		r.Versions[at(1)] = strings.TrimPrefix(at(2), "Version ")
	case "space":
		if n, err := strconv.ParseInt(at(2), 10, 54); err == nil && n >= 0 { // in bytes it still fits into 64 bits
			r.Space[at(1)] = n
		}
	case "status":
		var a Answered
		data, err := base64.StdEncoding.DecodeString(at(2))
		if a.Err = err; err == nil {
			a.Status, a.Err = systemd.ParseStatus(data)
		}
		r.Statuses[at(1)] = a
	case "busy":
		r.Busy = true
	case "interrupted":
		r.Interrupted = true
	case "forgotten":
		r.Forgotten = true
	case "pending":
		r.Pending = append(r.Pending, at(1))
	}
}

// Problem is why a node cannot be brought to what is wanted, with what to do.
type Problem struct{ Text, Hint string }

func (p *Problem) Error() string { return p.Text }

func problemf(hint, format string, args ...any) *Problem {
	return &Problem{Text: fmt.Sprintf(format, args...), Hint: hint}
}
