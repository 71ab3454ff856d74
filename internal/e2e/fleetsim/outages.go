package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// flaps is how often the API server is killed in a row, after it has been ready for
// betweenFlaps.
const (
	flaps        = 3
	betweenFlaps = time.Second
)

// settled is how long a node must follow the API server until it forgets earlier failures, in
// internal/kube, with some time to spare. A simulation with a shorter steady state does not
// wait for that: then its times include the longer pauses after several failures.
const settled = 40 * time.Second

// The most requests of a node with a token that the API server rejects, and the most
// requests of a node to follow a server that has changed. Slow servers cause several
// attempts; a node that does not pause between attempts sends far more.
const (
	maxUnauthorized = 30
	maxReturn       = 30
)

// outages replaces the tokens, changes the versions of ClientMounts, and lets the API server
// fail, all during one job. Several failures in a row come last: afterwards the nodes wait
// longer before they connect again. Each time all nodes must follow the server again,
// without requests for their mounts. At the end of the job all of them must unmount,
// without having mounted twice.
func (s *simulation) outages() error {
	if err := s.replaceTokens(); err != nil {
		return err
	}
	long := outage{name: fmt.Sprintf("API server down for %v", s.outage), stop: s.cluster.Kill, down: s.outage}
	if s.shortened() {
		return s.stops([]outage{s.bothStops()[0], long})
	}
	if err := s.changeVersions(); err != nil {
		return err
	}
	if err := s.settle(); err != nil {
		return err
	}
	return s.stops(append(s.bothStops(), long,
		outage{name: fmt.Sprintf("API server killed %d times in a row", flaps), stop: s.cluster.Kill, again: flaps - 1}))
}

// restarts is the part of outages that the reference fleet can do.
func (s *simulation) restarts() error {
	if err := s.createJob(s.part, s.part); err != nil {
		return err
	}
	if err := s.awaitJob(s.part); err != nil {
		return err
	}
	return s.stops(s.bothStops())
}

// bothStops are the usual ways in which an API server is restarted.
func (s *simulation) bothStops() []outage {
	return []outage{
		{name: "API server restarted by SIGTERM", stop: s.cluster.Stop},
		{name: "API server restarted by SIGKILL", stop: s.cluster.Kill},
	}
}

// settle waits until the nodes forget earlier failures.
func (s *simulation) settle() error { return pause(s.ctx, min(s.steady, settled)) }

// stops measures failures of the API server during a job, and ends the job.
func (s *simulation) stops(list []outage) error {
	for i, o := range list {
		s.say(o.name)
		if i > 0 {
			if err := s.settle(); err != nil {
				return err
			}
		}
		if err := s.measure(o.name, func(r *row) error { return s.restart(r, o) }); err != nil {
			return err
		}
	}
	if err := s.endJob(s.part); err != nil {
		return err
	}
	s.nothingLeft(s.Rows[len(s.Rows)-1])
	return nil
}

// replaceTokens starts a job while the API server already rejects the token of all nodes,
// and then gives them a new one. The running watches deliver the ClientMounts, but no
// node can read its profile or report anything.
func (s *simulation) replaceTokens() error {
	account := product.Daemons[0].Account
	return s.measure("tokens of all nodes replaced", func(r *row) error {
		r.Nodes, r.among = len(s.part), len(s.part)
		r.checks = append(r.checks, func(r *row) {
			with := 0
			r.each("rejected requests", func(c counts) bool {
				if c.failed[unauthorized] > 0 {
					with++
				}
				return c.failed[unauthorized] <= maxUnauthorized && c.failures() == c.failed[unauthorized]+c.failed[overload]
			})
			r.each("requests with the new token", func(c counts) bool {
				return c.total()-c.failures() <= maxWrites+maxProfiles && c.requests[list]+c.requests[watch]+c.requests[other] == 0
			})
			if with != len(s.part) {
				r.wrong([]string{fmt.Sprintf("%d nodes sent requests with the old token, expected %d", with, len(s.part))})
			}
		})
		old, err := os.ReadFile(s.fleet.nodes[0].tokenFile())
		if err != nil {
			return err
		}
		fresh, err := s.accounts.token(s.ctx, account)
		if err == nil {
			err = s.accounts.await(s.ctx, fresh, http.StatusOK)
		}
		if err == nil {
			err = s.accounts.await(s.ctx, old, http.StatusUnauthorized)
		}
		if err != nil {
			return err
		}
		before := failuresOf(s.part, unauthorized)
		if err := s.createJob(s.part, s.part); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(s.ctx, patience)
		defer cancel()
		if err := wait.For(ctx, "a rejected request of each node of the job", func() (bool, error) {
			for i, n := range failuresOf(s.part, unauthorized) {
				if n == before[i] {
					return false, nil
				}
			}
			return true, nil
		}); err != nil {
			return err
		}
		replaced := time.Now()
		for _, n := range s.fleet.nodes {
			if err := n.setToken(fresh); err != nil {
				return err
			}
		}
		if err := s.awaitJob(s.part); err != nil {
			return err
		}
		times := s.manager.times(func(*lifecycle) time.Time { return replaced })
		r.setTimes(times, slices.Max(times))
		r.How = "from the new token until the manager sees the ClientMount ready, which was created with the old token"
		return nil
	})
}

// failuresOf returns the number of failed requests of a kind for each node.
func failuresOf(nodes []*simulated, kind failure) (out []int64) {
	for _, n := range nodes {
		c := n.daemon.counts()
		out = append(out, c.failed[kind])
	}
	return out
}

// outage is a failure of the API server.
type outage struct {
	name  string
	stop  func() error
	down  time.Duration // until the server is started again
	again int           // how often this is repeated
}

func (s *simulation) restart(r *row, o outage) error {
	r.restarted = true
	r.checks = append(r.checks, returned)
	var last time.Time // when the server was last stopped
	for i := range o.again + 1 {
		if i > 0 {
			if err := pause(s.ctx, betweenFlaps); err != nil {
				return err
			}
		}
		last = time.Now()
		if err := o.stop(); err != nil {
			return err
		}
		if err := pause(s.ctx, o.down); err != nil {
			return err
		}
		if err := s.cluster.Restart(s.ctx); err != nil {
			return err
		}
	}
	ready := time.Since(last)
	times, err := s.follow(last)
	if err != nil {
		return err
	}
	s.say("connections in each second since the last signal: " + perSecond(s.fleet.traffic(), last))
	r.setTimes(times, time.Since(r.started).Seconds())
	r.How = fmt.Sprintf("from the last signal until a node follows again; the server was ready again after %.1f s; its CPU time is that of the last process, with its start", ready.Seconds())
	return nil
}

// returned checks the requests after a failure or change of the API server, in which no
// node has to do anything for its mounts.
func returned(r *row) {
	r.each("requests to follow again", func(c counts) bool {
		return c.requests[patch] == 0 && c.requests[profile] == 0 && c.requests[watch] >= 1 && c.total() <= maxReturn
	})
}

// definitions is the path of the CustomResourceDefinitions.
const definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

// changeVersions changes the versions in the definitions, which ends all watches, as an
// upgrade of the system does: first the version of the stored objects, then the served
// versions, so that the nodes must use another one. In the end the definitions are as
// before, and the nodes still use the other version.
func (s *simulation) changeVersions() error {
	s.say("change of the versions of ClientMounts")
	newest, older := api.VersionsDWS[0], api.VersionsDWS[1]
	if err := s.measure("ClientMounts stored in another version", func(r *row) error { return s.setVersions(r, older, "") }); err != nil {
		return err
	}
	if err := s.measure("ClientMounts no longer served in a version", func(r *row) error { return s.setVersions(r, older, newest) }); err != nil {
		return err
	}
	return s.setVersions(nil, newest, "")
}

// setVersions changes the definition of ClientMounts, and waits until all nodes follow again. The
// other resources of the group keep their versions.
func (s *simulation) setVersions(r *row, stored, unserved string) error {
	path := definitions + "/clientmounts." + api.GroupDWS
	o, err := s.cluster.Do(s.ctx, http.MethodGet, path, "", nil)
	if err != nil {
		return err
	}
	versions, _ := o.At("spec", "versions").([]any)
	for _, v := range versions {
		v, _ := v.(map[string]any)
		v["storage"] = v["name"] == stored
		if slices.Contains(api.VersionsDWS, fmt.Sprint(v["name"])) {
			v["served"] = v["name"] != unserved
		}
	}
	changed := time.Now()
	change := lab.Object{"spec": map[string]any{"versions": versions}}
	if _, err := s.cluster.PatchPath(s.ctx, path, "application/merge-patch+json", change); err != nil {
		return err
	}
	times, err := s.follow(changed)
	if err != nil || r == nil {
		return err
	}
	r.checks = append(r.checks, returned)
	if unserved != "" {
		// The first response is 404, and the lookup is a request for each version.
		r.checks = append(r.checks, func(r *row) {
			r.each("discovery", func(c counts) bool { return c.requests[discovery] >= 2 && c.failed[refused] >= 1 })
		})
	}
	r.setTimes(times, slices.Max(times))
	r.How = "from the change of the definitions until a node follows again"
	return nil
}

// asStatus returns the HTTP status of an error of the API server.
func asStatus(err error) (code int, ok bool) {
	status := (*lab.StatusError)(nil)
	if errors.As(err, &status) {
		return status.Code, true
	}
	return 0, false
}
