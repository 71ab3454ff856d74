package target

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
)

// Probe returns the state of a node, and changes nothing.
func Probe(ctx context.Context, shell remote.Shell, w *Want) (*Report, error) {
	var out bytes.Buffer
	err := shell.Run(ctx, w.Node, probeScript, strings.NewReader(request(w)), &bounded{&out, maxAnswer})
	silent := out.Len() == 0
	report, perr := parseReport(&out)
	if e := (*remote.Error)(nil); errors.As(err, &e) && (e.Kind != remote.Failed || silent) {
		return nil, err
	}
	return report, perr
}

// maxAnswer is the maximum size in bytes of the answer of a node.
const maxAnswer = 4 << 20

// bounded writes at most left bytes to w and discards the rest, so that a node cannot exhaust
// the memory.
type bounded struct {
	w    io.Writer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	n := min(len(p), b.left)
	b.left -= n
	if n > 0 {
		if _, err := b.w.Write(p[:n]); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// request returns the standard input of the probe script.
func request(w *Want) string {
	var b strings.Builder
	for _, d := range w.Daemons {
		for _, path := range d.paths() {
			fmt.Fprintf(&b, "file %s\n", path)
		}
		token, _ := product.Credentials(d.Name)
		fmt.Fprintf(&b, "claims %s\n", token)
		if d.Bin == "" {
			continue
		}
		p := d.product()
		for _, path := range slices.Concat(p.ConfigDirectories(), []string{p.RenewalDirectory()}, d.timerPaths()) {
			fmt.Fprintf(&b, "file %s\n", path)
		}
		for _, name := range product.StoredFiles {
			fmt.Fprintf(&b, "stored %s/%s\n", p.RenewalDirectory(), name)
		}
		units := p.Units()
		if timer := p.Timer(); timer != "" {
			units = append(units, timer)
		}
		for _, unit := range units {
			fmt.Fprintf(&b, "unit %s\n", unit)
		}
		fmt.Fprintf(&b, "daemon %s %s %s\n", d.Bin, p.User, strings.Join(product.StoredFiles, " "))
	}
	return b.String() + "end\n"
}

// Report is the state of a node, as the probe script reports it.
type Report struct {
	Arch        string
	Systemd     string // version; "": systemd does not run
	Files       map[string]FileState
	Contents    map[string]string // of units and drop-ins
	Units       map[string]Unit
	Packages    map[string]Installed    // by name
	Owners      map[string]string       // package that owns a path
	Packaged    map[string]bool         // whether the unit of a program comes from a package
	Versions    map[string]string       // of programs
	Claims      map[string]kube.Claims  // of service account tokens, by path
	BadExpiry   map[string]bool         // tokens whose expiry is not a valid date
	Space       map[string]int64        // free space in KiB, by directory
	Statuses    map[string]StatusAnswer // of programs, from "status -o json"
	Busy        bool                    // another nnf-deploy is changing the node
	Interrupted bool                    // an earlier run was interrupted
	Leftovers   bool                    // it has left files
	Unconfirmed bool                    // the state directory is no longer needed, such as after a removal whose result was not confirmed
	Pending     []string                // daemons that an interrupted run did not restart
}

// FileState is the state of a path. State is the SHA-256 of a file, or "absent",
// "directory", "link" or "other". It is storedFile for the file of a stored token.
type FileState struct{ State, Mode, Owner string }

const storedFile = "file"

// StatusAnswer is the answer of a program to "status -o json", or the error.
type StatusAnswer struct {
	*systemd.Status
	Err error
}

// Installed is an installed package.
type Installed struct{ NEVRA, Header string }

// Unit is the state of a unit, from "systemctl show".
type Unit struct {
	Load, Active, File string // LoadState, ActiveState, UnitFileState
	Status             string // StatusText: the status that the daemon reports
}

func newReport() *Report {
	return &Report{
		Files: map[string]FileState{}, Contents: map[string]string{}, Units: map[string]Unit{}, Packages: map[string]Installed{},
		Owners: map[string]string{}, Packaged: map[string]bool{}, Versions: map[string]string{}, Claims: map[string]kube.Claims{}, BadExpiry: map[string]bool{}, Space: map[string]int64{}, Statuses: map[string]StatusAnswer{},
	}
}

// parseReport parses the answer of the probe script.
func parseReport(in io.Reader) (*Report, error) {
	r := newReport()
	if err := parseLines(in, r.parse); err != nil {
		return nil, err
	}
	return r, nil
}

// parseLines parses the answer of a script: lines of fields separated by tabs. It calls each for
// the lines between the first one and the end.
func parseLines(in io.Reader, each func(fields []string)) error {
	started, ended := false, false
	var problem *Problem
	s := bufio.NewScanner(in)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		f := strings.Split(s.Text(), "\t")
		switch {
		case f[0] == "nnf-deploy":
			started = true
		case f[0] == "error" && len(f) >= 3:
			problem = &Problem{Text: f[1], Hint: f[2]}
		case f[0] == "end":
			ended = true
		case started && !ended:
			each(f)
		}
	}
	switch {
	case problem != nil:
		return problem
	case s.Err() != nil:
		return &Problem{Text: "cannot parse its answer: " + s.Err().Error()}
	case !started:
		return &Problem{Text: "it returned no answer", Hint: "check that its login shell runs commands"}
	case !ended:
		return &Problem{Text: "its answer is truncated", Hint: "run the command again"}
	}
	return nil
}

// parse adds one line to the report. It ignores unknown lines.
func (r *Report) parse(f []string) {
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
		// The token in use may be in the state directory. Its checksum is reported first.
		if _, twice := r.Files[at(4)]; !twice || at(1) != storedFile {
			r.Files[at(4)] = FileState{at(1), at(2), at(3)}
		}
	case "content":
		if data, err := base64.StdEncoding.DecodeString(at(2)); err == nil && word.MatchString(at(1)) {
			r.Contents[at(1)] = string(data)
		}
	case "claims":
		switch c, err := kube.ParseClaims(at(2)); {
		case err == nil:
			r.Claims[at(1)] = c
		case errors.Is(err, kube.ErrClaimedExpiry):
			r.BadExpiry[at(1)] = true
		}
	case "unit":
		data, _ := base64.StdEncoding.DecodeString(at(2)) // a damaged line is an unknown state
		p := systemd.Properties(string(data))
		r.Units[at(1)] = Unit{p["LoadState"], p["ActiveState"], p["UnitFileState"], p["StatusText"]}
	case "package":
		one := Installed{at(2), at(3)}
		if other, twice := r.Packages[at(1)]; twice && other != one {
			one = Installed{NEVRA: other.NEVRA + ", " + one.NEVRA} // a transaction was killed: both are incomplete
		}
		r.Packages[at(1)] = one
	case "owner":
		r.Owners[at(1)] = at(2)
	case "packaged":
		r.Packaged[at(1)] = true
	case "version":
		r.Versions[at(1)] = strings.TrimPrefix(at(2), "Version ")
	case "space":
		if n, err := strconv.ParseInt(at(2), 10, 54); err == nil && n >= 0 { // the number of bytes still has at most 64 bits
			r.Space[at(1)] = n
		}
	case "status":
		var a StatusAnswer
		data, err := base64.StdEncoding.DecodeString(at(2))
		if a.Err = err; err == nil {
			a.Status, a.Err = systemd.ParseStatus(data)
		}
		r.Statuses[at(1)] = a
	case "busy":
		r.Busy = true
	case "interrupted":
		r.Interrupted = true
	case "leftovers":
		r.Leftovers = true
	case "unconfirmed":
		r.Unconfirmed = true
	case "pending":
		r.Pending = append(r.Pending, at(1))
	}
}

// DaemonState is the state of one daemon on a node.
type DaemonState struct {
	Name    string
	Healthy bool   // installed, running, with a valid token
	Version string // of the program; "": not installed
	Package string
	Unit    string // ActiveState of the enabled unit; "": no unit
	Enabled string
	Status  string    // status text that the daemon reports
	API     string    // answers, no answer, connecting; "": not reported
	Mounts  *Mounts   // nil: the daemon does not mount
	Token   string    // one of the constants below
	Expires time.Time // if Token is TokenExpires
	Issued  time.Time // zero: not known
	Kind    string    // of the token's account, one of the constants below; "": not a service account
	Account string    // user name of the account, as the token claims it
	Timer   string    // one of the constants below; "": the daemon has none
}

// Mounts describes clientmountd's mounts on a node.
type Mounts struct {
	Count      int    // ClientMounts with mounts in place
	Unreadable int    // records that cannot be read: something may be mounted
	Unknown    string // why the numbers are unknown; "": they are known
}

// version returns the version of an installed program, or "" if it is unknown. Programs that
// are too old for "status -o json" print it with "version".
func (r *Report) version(bin string) string {
	if a := r.Statuses[bin]; a.Status != nil && a.ProgramVersion != "" {
		return a.ProgramVersion
	}
	return r.Versions[bin]
}

// mounts returns the mounts of an installed program, or nil if the program is not installed
// or does not mount.
func (r *Report) mounts(bin string) *Mounts {
	if p, _ := product.Of(bin); !p.Mounts || r.Files[product.Path(bin)].State == "absent" {
		return nil
	}
	a, m := r.Statuses[bin], new(Mounts)
	switch {
	case a.Status == nil && a.Err == nil:
		m.Unknown = bin + " was not queried"
	case a.Err != nil:
		version := r.version(bin)
		if version == "" {
			version = "(unknown version)"
		}
		m.Unknown = fmt.Sprintf("%s %s gives no valid answer to status -o json: %v", bin, version, a.Err)
	case a.Status.Mounts == nil:
		m.Unknown = "status -o json of " + bin + " does not report mounts"
	case a.Status.Mounts.Error != "":
		m.Unknown = a.Status.Mounts.Error
	case a.Status.Mounts.Count < 0 || a.Status.Mounts.Unreadable < 0:
		m.Unknown = "status -o json of " + bin + " reports a negative number"
	default:
		m.Count, m.Unreadable = a.Status.Mounts.Count, a.Status.Mounts.Unreadable
	}
	return m
}

// States of a token. They are values of the JSON output, so they must not change.
const (
	TokenMissing   = "missing"
	TokenExpires   = "ends"
	TokenPermanent = "does not end"
	TokenUnknown   = "not a service account's"
	TokenInvalid   = "its expiry is not a valid date"
)

// Kinds of accounts, as the daemons report them. They are values of the JSON output, so they must
// not change.
const (
	KindShared  = string(kube.TokenShared)
	KindPerNode = string(kube.TokenPerNode)
	KindOther   = string(kube.TokenOther)
)

// States of a timer. They are values of the JSON output, so they must not change.
const (
	TimerOn     = "active"
	TimerOff    = "inactive"
	TimerMasked = "masked"
	TimerAbsent = "missing"
)

// timerState returns the state of the timer of a daemon: it is on if it is active now and at boot.
func (r *Report) timerState(p *product.Daemon) string {
	switch u := r.Units[p.Timer()]; {
	case p.Timer() == "":
		return ""
	case u.Load == "masked":
		return TimerMasked
	case u.Load != "loaded":
		return TimerAbsent
	case u.Active == "active" && onAtBoot(u):
		return TimerOn
	}
	return TimerOff
}

// onAtBoot reports whether systemd starts the unit at boot. A unit without an [Install] section is left
// to the administrator who has written it.
func onAtBoot(u Unit) bool { return u.File == "enabled" || u.File == "static" }

// Daemons returns the states of the wanted daemons.
func (r *Report) Daemons(w *Want, now time.Time) (list []DaemonState) {
	for i := range w.Daemons {
		list = append(list, r.daemon(&w.Daemons[i], w.Node, now))
	}
	return list
}

func (r *Report) daemon(d *Daemon, node string, now time.Time) DaemonState {
	s := DaemonState{Name: d.Name}
	path, _ := product.Credentials(d.Name)
	claims, known := r.token(d)
	switch {
	case r.Files[path].State == "absent":
		s.Token = TokenMissing
	case r.BadExpiry[path]:
		s.Token = TokenInvalid
	case !known:
		s.Token = TokenUnknown
	case claims.Expires.IsZero():
		s.Token = TokenPermanent
	default:
		s.Token, s.Expires = TokenExpires, claims.Expires
	}
	if s.Token != TokenMissing {
		s.Kind, s.Account, s.Issued = kind(d, node, claims.Subject), claims.Subject, claims.Issued
	}
	good := s.Token == TokenPermanent || s.Token == TokenUnknown || s.Token == TokenExpires && claims.Expires.After(now)
	if d.Bin == "" {
		s.Healthy = good
		return s
	}
	p := d.product()
	running, enabled := r.Units[p.Service()], r.Units[p.Enabled()]
	s.Version, s.Package, s.Status = r.version(d.Bin), r.Packages[d.Bin].NEVRA, running.Status
	if enabled.Load != "not-found" {
		s.Unit, s.Enabled = enabled.Active, enabled.File
	}
	if running.Active == "failed" {
		s.Unit = "failed"
	}
	s.Mounts, s.Timer = r.mounts(d.Bin), r.timerState(&p)
	if a := r.Statuses[d.Bin]; a.Status != nil {
		s.API = a.API
	}
	s.Healthy = good && s.Unit == "active" && s.API != systemd.APISilent
	return s
}
