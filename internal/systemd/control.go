package systemd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/text/hint"
)

// state is the state of one unit (org.freedesktop.systemd1(5)).
type state struct {
	unit                    string
	load, active, sub, file string // file: enabled, disabled, static, …
	result, status, pid     string
}

func (s state) known() bool { return s.load != "not-found" }

// runs reports whether the unit can be stopped.
func (s state) runs() bool { return s.active != "inactive" && s.active != "failed" }

func (s state) failed() bool { return s.active == "failed" }

// up reports whether the unit is active or its process exists: a daemon that waits
// for the API server is not active yet.
func (s state) up() bool { return s.active == "active" || s.active == "reloading" || s.process() }

func (s state) process() bool { return s.pid != "" && s.pid != "0" }

// states reads the states of all units, the service first.
func (s *Service) states(ctx context.Context) ([]state, error) {
	var all []state
	for _, unit := range s.Units {
		out, err := s.systemctl(ctx, "show", "--property=LoadState,ActiveState,SubState,UnitFileState,Result,MainPID,StatusText", unit.Name)
		if err != nil {
			return nil, err
		}
		p := Properties(out)
		one := state{
			unit: unit.Name, load: p["LoadState"], active: p["ActiveState"], sub: p["SubState"], file: p["UnitFileState"],
			result: p["Result"], pid: p["MainPID"], status: p["StatusText"],
		}
		if one.load == "" || one.active == "" {
			return nil, errors.New("systemctl show " + unit.Name + " does not report the state of the unit")
		}
		all = append(all, one)
	}
	return all, nil
}

// Properties parses the output of "systemctl show --property=...": lines NAME=VALUE.
func Properties(shown string) map[string]string {
	p := map[string]string{}
	for line := range strings.Lines(shown) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			p[name] = value
		}
	}
	return p
}

// loaded returns the names of the units that systemd has and that match.
func loaded(states []state, match func(state) bool) (units []string) {
	for _, one := range states {
		if one.known() && match(one) {
			units = append(units, one.unit)
		}
	}
	return units
}

// installed returns the states of all units, or an error if the service is not
// installed.
func (s *Service) installed(ctx context.Context) ([]state, error) {
	if s.booted() {
		states, err := s.states(ctx)
		if err == nil && !states[0].known() {
			err = hint.Add(ErrNotInstalled, "install the package, or run %s install", s.Name)
		}
		return states, err
	}
	for _, dir := range []string{UnitDirectory, PackageDirectory} {
		if there, err := present(s.path(dir, s.Units[0].Name)); err != nil {
			return nil, err
		} else if there {
			return nil, hint.Add(errors.New("systemd is not running"), "if the service is enabled, systemd starts it at the next boot")
		}
	}
	return nil, ErrNotInstalled
}

// start starts the service and its socket.
func (s *Service) start(ctx context.Context) error {
	states, err := s.installed(ctx)
	if err != nil {
		return err
	}
	if states[0].up() {
		return ErrRunning
	}
	for _, one := range states {
		if one.load == "masked" {
			return hint.Add(fmt.Errorf("%s is masked", one.unit), "if this is not intended, run systemctl unmask %s", one.unit)
		}
	}
	if _, err := s.systemctl(ctx, append([]string{"start"}, loaded(states, state.known)...)...); err != nil {
		return hint.Add(err, "for the reason, see journalctl -u %s -n 20", s.Name)
	}
	return nil
}

// stop stops the service and its socket, which would otherwise start it again.
func (s *Service) stop(ctx context.Context) error {
	states, err := s.installed(ctx)
	if err != nil {
		return err
	}
	units := loaded(states, state.runs)
	if len(units) == 0 {
		return ErrStopped
	}
	_, err = s.systemctl(ctx, append([]string{"stop"}, units...)...)
	return err
}

// status returns a line that scripts match, about whether the service runs, then the
// state of each unit and the status line of the daemon.
func (s *Service) status(ctx context.Context) (lines []string, err error) {
	states, err := s.installed(ctx)
	if err != nil {
		return nil, err
	}
	service := states[0]
	switch {
	case service.process():
		lines = append(lines, fmt.Sprintf("Service (pid  %s) is running...", service.pid))
	case service.up():
		lines = append(lines, "Service is running...")
	default:
		lines = append(lines, "Service is stopped")
	}
	for _, one := range states {
		if !one.known() {
			continue
		}
		line := fmt.Sprintf("%s: %s (%s)", one.unit, one.active, one.sub)
		if one.result != "" && one.result != "success" {
			line += ", result " + one.result
		}
		if one.file != "" {
			line += ", " + one.file
		}
		lines = append(lines, line)
	}
	if service.status != "" {
		lines = append(lines, "Reported: "+service.status)
	}
	if !service.up() && service.result != "" && service.result != "success" {
		lines = append(lines, fmt.Sprintf("See: journalctl -u %s -n 20", s.Name))
	}
	for _, unit := range s.Units {
		advice, err := s.hidden(unit.Name)
		if err != nil {
			return nil, err
		}
		if advice != "" {
			lines = append(lines, "Warning: "+advice)
		}
	}
	return lines, nil
}
