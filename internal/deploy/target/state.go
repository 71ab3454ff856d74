package target

import (
	"fmt"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/systemd"
)

// DaemonState is how one daemon does on a node.
type DaemonState struct {
	Name    string
	Well    bool   // it is there, runs, and its token is good
	Version string // of the program; "": it is not there
	Package string
	Unit    string // of what is enabled: active, inactive, failed, ...; "": there is none
	Enabled string
	Says    string  // what it reports of itself
	API     string  // answers, no answer, connecting; "": it does not say
	Mounts  *Mounts // nil: it mounts nothing
	Token   string
	Expires time.Time // when Token is TokenEnds
}

// Mounts is what is known of clientmountd's mounts on a node.
type Mounts struct {
	Count      int    // ClientMounts with mounts in place
	Unreadable int    // records that cannot be read: something may be mounted
	Unknown    string // why the rest is not known; "": it is
}

// mounts are those of the installed program; nil if it is not installed or does not
// mount.
func (r *Report) mounts(bin string) *Mounts {
	if bin != "clientmountd" || r.Files["/usr/bin/"+bin].State == "absent" {
		return nil
	}
	a, m := r.Statuses[bin], new(Mounts)
	switch {
	case a.Status == nil && a.Err == nil:
		m.Unknown = bin + " was not asked"
	case a.Err != nil:
		version := r.Versions[bin]
		if version == "" {
			version = "of an unknown version"
		}
		m.Unknown = fmt.Sprintf("%s %s does not answer status -o json: %v", bin, version, a.Err)
	case a.Status.Mounts == nil:
		m.Unknown = "status -o json of " + bin + " tells nothing of mounts"
	case a.Status.Mounts.Error != "":
		m.Unknown = a.Status.Mounts.Error
	case a.Status.Mounts.Count < 0 || a.Status.Mounts.Unreadable < 0:
		m.Unknown = "status -o json of " + bin + " has a negative number"
	default:
		m.Count, m.Unreadable = a.Status.Mounts.Count, a.Status.Mounts.Unreadable
	}
	return m
}

// What there is to say of a token.
const (
	TokenMissing = "missing"
	TokenEnds    = "ends"
	TokenForever = "does not end"
	TokenUnknown = "not a service account's"
	TokenInvalid = "its expiry is not a valid date"
)

// Daemons are the states of those that are asked for.
func (r *Report) Daemons(w *Want, now time.Time) (list []DaemonState) {
	for i := range w.Daemons {
		list = append(list, r.daemon(&w.Daemons[i], now))
	}
	return list
}

func (r *Report) daemon(d *Daemon, now time.Time) DaemonState {
	s := DaemonState{Name: d.Name}
	path, _ := credentials(d.Name)
	ends, claims := r.Expiry[path]
	switch {
	case r.Files[path].State == "absent":
		s.Token = TokenMissing
	case r.BadExpiry[path]:
		s.Token = TokenInvalid
	case !claims:
		s.Token = TokenUnknown
	case ends.IsZero():
		s.Token = TokenForever
	default:
		s.Token, s.Expires = TokenEnds, ends
	}
	good := s.Token == TokenForever || s.Token == TokenUnknown || s.Token == TokenEnds && ends.After(now)
	if d.Bin == "" {
		s.Well = good
		return s
	}
	running, enabled := r.Units[d.Bin+".service"], r.Units[traits[d.Bin].enabled]
	s.Version, s.Package, s.Says = r.Versions[d.Bin], r.Packages[d.Bin].NEVRA, running.Status
	if enabled.Load != "not-found" {
		s.Unit, s.Enabled = enabled.Active, enabled.File
	}
	if running.Active == "failed" {
		s.Unit = "failed"
	}
	s.Mounts = r.mounts(d.Bin)
	if a := r.Statuses[d.Bin]; a.Status != nil {
		s.API = a.API
	}
	s.Well = good && s.Unit == "active" && s.API != systemd.APISilent
	return s
}
