package systemd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
)

// StatusVersion is the layout of Status. Fields are added without a new version;
// a field that is removed or changes its meaning makes a new version.
const StatusVersion = 1

// Status is the answer of "status -o json", for programs.
type Status struct {
	Version        int               `json:"version"`
	Program        string            `json:"program"`
	ProgramVersion string            `json:"program_version"` // of the program that answers; the running one may be older
	Service        ServiceStatus     `json:"service"`
	Units          []UnitStatus      `json:"units"`
	API            string            `json:"api,omitempty"`    // one of APIAnswers, APISilent, APIConnecting
	Mounts         *MountStatus      `json:"mounts,omitempty"` // of a daemon that mounts
	Paths          map[string]string `json:"paths"`
}

// The states of the API server that a running daemon reports.
const (
	APIAnswers    = "answers"
	APISilent     = "no answer"
	APIConnecting = "connecting"
)

// ServiceStatus is the service as systemd shows it.
type ServiceStatus struct {
	Installed bool   `json:"installed"` // systemd knows its unit
	Enabled   bool   `json:"enabled"`   // it, or the socket that starts it, starts at boot
	Active    bool   `json:"active"`    // its process is there
	Ready     bool   `json:"ready"`     // it has reported that it is ready
	PID       int    `json:"pid"`       // 0: no process
	Status    string `json:"status"`    // what it reports, for people
	Error     string `json:"error,omitempty"`
}

// UnitStatus is one unit, with systemd's words.
type UnitStatus struct {
	Unit     string `json:"unit"`
	Load     string `json:"load"`
	Active   string `json:"active"`
	Sub      string `json:"sub"`
	UnitFile string `json:"unit_file"`
	Result   string `json:"result"`
}

// MountStatus is what a daemon's records contain about its mounts, even if it does not
// run.
type MountStatus struct {
	Count      int    `json:"count"`           // ClientMounts with a mount in place
	Unreadable int    `json:"unreadable"`      // records that cannot be used: something may be mounted
	Error      string `json:"error,omitempty"` // why Count is not known
}

// Start is how the daemon's process was started, or would be.
type Start struct{ Args, Environ []string }

// ParseStatus reads the answer of "status -o json".
func ParseStatus(data []byte) (*Status, error) {
	var head struct {
		Version int `json:"version"`
	}
	// The version first: a newer layout need not fit ours.
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("it is not JSON: %w", err)
	}
	if head.Version != StatusVersion {
		return nil, fmt.Errorf("it has version %d, and this program reads version %d", head.Version, StatusVersion)
	}
	s := new(Status)
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("it is damaged: %w", err)
	}
	return s, nil
}

// StatusJSON answers "status -o json": the document on stdout, even if the service
// is not installed or does not run, and nothing is changed by it. It returns the
// exit code, which is that of status.
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
	if s.Describe != nil {
		s.Describe(s.started(ctx, doc), doc)
	}
	return doc, err
}

// started returns how the daemon was started: from /proc if it runs, otherwise from
// its unit.
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

// fields are the strings in a file of /proc, each with a zero byte at its end.
func fields(data []byte) []string {
	return strings.FieldsFunc(string(data), func(r rune) bool { return r == 0 })
}
