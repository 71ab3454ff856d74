package host

import (
	"strings"
	"time"
)

// DaemonState is how one daemon does on a node.
type DaemonState struct {
	Name    string
	Well    bool   // it is there, runs, and its token is good
	Version string // of the program; "": it is not there
	Package string
	Unit    string // of what is enabled: active, inactive, failed, ...; "": there is none
	Enabled string
	Says    string // what it reports of itself
	API     string // answers, no answer, connecting; "": it does not say
	Mounts  *int   // ClientMounts with mounts in place; nil: it mounts nothing
	Token   string
	Expires time.Time // when Token is TokenEnds
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
	service, enabled := r.Units[d.Bin+".service"], r.Units[traits[d.Bin].enabled]
	s.Version, s.Package, s.Says = r.Versions[d.Bin], r.Packages[d.Bin].NEVRA, service.Status
	if enabled.Load != "not-found" {
		s.Unit, s.Enabled = enabled.Active, enabled.File
	}
	if service.Active == "failed" {
		s.Unit = "failed"
	}
	if d.Bin == "clientmountd" {
		s.Mounts = &r.Mounts
		if service.Active == "active" || service.Active == "activating" {
			s.API = reaches(service.Status)
		}
	}
	s.Well = good && s.Unit == "active" && s.API != "no answer"
	return s
}

// reaches reads what clientmountd says of the API server.
func reaches(status string) string {
	switch {
	case strings.Contains(status, "; API server answers"):
		return "answers"
	case strings.Contains(status, "; API server has not answered"):
		return "no answer"
	case strings.Contains(status, "; connecting to the API server"):
		return "connecting"
	}
	return ""
}
