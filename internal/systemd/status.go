package systemd

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
)

// StatusVersion is the version of the layout of Status. It changes if a field is removed
// or changes its meaning, but not if a field is added.
const StatusVersion = 1

// Status is the output of "status -o json", for programs.
type Status struct {
	Version        int               `json:"version"`
	Program        string            `json:"program"`
	ProgramVersion string            `json:"program_version"` // of the program that prints it; the running daemon may be older
	Service        ServiceStatus     `json:"service"`
	Units          []UnitStatus      `json:"units"`
	API            string            `json:"api,omitempty"`    // one of APIAnswers, APISilent, APIConnecting
	Mounts         *MountStatus      `json:"mounts,omitempty"` // only of clientmountd
	Token          *mountstate.Token `json:"token,omitempty"`
	Renewal        *RenewalStatus    `json:"renewal,omitempty"`
	Paths          map[string]string `json:"paths"`
}

// Values of Status.API, which a running daemon reports.
const (
	APIAnswers    = "answers"
	APISilent     = "no answer"
	APIConnecting = "connecting"
)

// ServiceStatus is the state of the service in systemd.
type ServiceStatus struct {
	Installed bool   `json:"installed"` // systemd has its unit
	Enabled   bool   `json:"enabled"`   // it, or its socket, starts at boot
	Active    bool   `json:"active"`    // its process exists
	Ready     bool   `json:"ready"`     // it has reported that it is ready
	PID       int    `json:"pid"`       // 0: no process
	Status    string `json:"status"`    // its status text, for people
	Error     string `json:"error,omitempty"`
}

// UnitStatus is the state of a unit, with the values of systemd.
type UnitStatus struct {
	Unit     string `json:"unit"`
	Load     string `json:"load"`
	Active   string `json:"active"`
	Sub      string `json:"sub"`
	UnitFile string `json:"unit_file"`
	Result   string `json:"result"`
}

// MountStatus is about the mounts in the records of a daemon, even if it does not run.
type MountStatus struct {
	Count      int    `json:"count"`           // ClientMounts with at least one mount
	Unreadable int    `json:"unreadable"`      // records that cannot be used, so that something may be mounted
	Error      string `json:"error,omitempty"` // reason why Count is unknown
}

// RenewalStatus is about the renewal of the token. A program that does not report it cannot renew.
type RenewalStatus struct {
	Enabled   bool   `json:"enabled"`         // the daemon renews a token of its account on this node
	Directory string `json:"directory"`       // where it stores the renewed token
	Error     string `json:"error,omitempty"` // reason why the settings are unknown
}

// Start has the arguments and the environment of the daemon, or those of its next start.
type Start struct{ Args, Environ []string }

// ParseStatus parses the output of "status -o json".
func ParseStatus(data []byte) (*Status, error) {
	return text.ParseJSON[Status](data, StatusVersion)
}

// StatusJSON runs "status -o json": it writes the document to stdout, even if the service
// is not installed or does not run, and changes nothing. It returns the exit code, which
// is that of status.
func (s *Service) StatusJSON(ctx context.Context, stdout, stderr io.Writer) int {
	doc, err := s.document(ctx)
	if doc != nil {
		if werr := text.JSON(stdout, doc); werr != nil {
			return 1
		}
	}
	if err != nil {
		hint.Write(stderr, "", s.Name, err)
		return 1
	}
	return 0
}

func (s *Service) document(ctx context.Context) (*Status, error) {
	doc, err := s.common(ctx)
	if doc != nil && s.Describe != nil {
		s.Describe(s.started(ctx, doc), doc)
	}
	return doc, err
}

// common returns the part of the document that is the same for all daemons.
func (s *Service) common(ctx context.Context) (*Status, error) {
	if s.uid() != 0 {
		return nil, ErrNotRoot
	}
	doc := &Status{Version: StatusVersion, Program: s.Name, ProgramVersion: s.Version, Units: []UnitStatus{}, Paths: map[string]string{}}
	if path, err := s.program(); err == nil {
		doc.Paths["program"] = path
	}
	states, err := s.installed(ctx)
	if err != nil {
		doc.Service.Error = err.Error()
	}
	for i, one := range states {
		if !one.known() {
			continue
		}
		doc.Units = append(doc.Units, UnitStatus{one.unit, one.load, one.active, one.sub, one.file, one.result})
		doc.Service.Enabled = doc.Service.Enabled || one.file == "enabled"
		if i == 0 {
			doc.Service.Installed, doc.Service.Active, doc.Service.Ready, doc.Service.Status = true, one.up(), one.active == "active" || one.active == "reloading", one.status
			doc.Service.PID, _ = strconv.Atoi(one.pid) // 0: none
		}
	}
	return doc, err
}

// started returns the arguments and environment of the daemon: from /proc if it runs,
// otherwise from its unit.
func (s *Service) started(ctx context.Context, doc *Status) Start {
	if doc.Service.PID > 0 {
		dir := s.path("/proc", strconv.Itoa(doc.Service.PID))
		args, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		environ, err2 := os.ReadFile(filepath.Join(dir, "environ"))
		if words := fields(args); err == nil && err2 == nil && len(words) > 0 {
			return Start{words[1:], fields(environ)}
		}
	}
	var start Start
	if !doc.Service.Installed {
		return start
	}
	out, err := s.systemctl(ctx, "show", "--property=ExecStart,Environment,RuntimeDirectory", s.Units[0].Name)
	if err != nil {
		return start
	}
	p := Properties(out)
	// { path=/usr/bin/x ; argv[]=/usr/bin/x --y ; ignore_errors=no ; ... }
	_, words, _ := strings.Cut(p["ExecStart"], " argv[]=")
	words, _, _ = strings.Cut(words, " ; ")
	if list := strings.Fields(words); len(list) > 0 {
		start.Args = list[1:]
	}
	for _, word := range strings.Fields(p["Environment"]) {
		start.Environ = append(start.Environ, strings.Trim(word, `"`))
	}
	if list := strings.Fields(p["RuntimeDirectory"]); len(list) > 0 {
		start.Environ = append(start.Environ, "RUNTIME_DIRECTORY=/run/"+list[0])
	}
	return start
}

// fields splits the content of a file of /proc at zero bytes.
func fields(data []byte) []string {
	return strings.FieldsFunc(string(data), func(r rune) bool { return r == 0 })
}
