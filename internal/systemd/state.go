package systemd

import (
	"context"
	"errors"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/text/hint"
)

// state is what systemd says of one unit (org.freedesktop.systemd1(5)).
type state struct {
	unit                    string
	load, active, sub, file string // file: enabled, disabled, static, …
	result, status, pid     string
}

func (s state) known() bool { return s.load != "not-found" }

// runs is true for everything that stop can do something about.
func (s state) runs() bool { return s.active != "inactive" && s.active != "failed" }

func (s state) failed() bool { return s.active == "failed" }

// up is true for a unit that does its work, or whose process is there: one that
// waits for the API server is not active yet.
func (s state) up() bool { return s.active == "active" || s.active == "reloading" || s.process() }

func (s state) process() bool { return s.pid != "" && s.pid != "0" }

// states asks systemd about all units, the service first.
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
			return nil, errors.New("systemctl show " + unit.Name + " does not say in which state it is")
		}
		all = append(all, one)
	}
	return all, nil
}

// Properties reads what "systemctl show --property=..." prints: NAME=VALUE, one a line.
func Properties(shown string) map[string]string {
	p := map[string]string{}
	for line := range strings.Lines(shown) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			p[name] = value
		}
	}
	return p
}

// loaded are the names of the units that systemd knows and for which it is so.
func loaded(states []state, so func(state) bool) (units []string) {
	for _, one := range states {
		if one.known() && so(one) {
			units = append(units, one.unit)
		}
	}
	return units
}

// installed returns the states of a service that is there.
func (s *Service) installed(ctx context.Context) ([]state, error) {
	if s.booted() {
		states, err := s.states(ctx)
		if err == nil && !states[0].known() {
			err = hint.Add(ErrNotInstalled, "install the package, or run %s install", s.Name)
		}
		return states, err
	}
	for _, dir := range []string{ownDir, packageDir} {
		if there, err := present(s.path(dir, s.Units[0].Name)); err != nil {
			return nil, err
		} else if there {
			return nil, hint.Add(errors.New("systemd does not run here"), "systemd starts the service at the next boot, if the service is enabled")
		}
	}
	return nil, ErrNotInstalled
}
