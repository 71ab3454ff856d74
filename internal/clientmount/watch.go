package clientmount

import (
	"context"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// MountsResource is the clientmounts resource in a version of its group.
func MountsResource(version string) kube.Resource {
	return kube.Resource{Group: api.GroupDWS, Version: version, Plural: "clientmounts", Kind: "ClientMount"}
}

// Source is where objects come from; *kube.Client with kube.Watch is the real
// one.
type Source interface {
	// Served finds the version to speak.
	Served(ctx context.Context, group string, known []string) (string, error)
	// Watch feeds the handler until ctx ends or the version is gone.
	Watch(ctx context.Context, r kube.Resource, namespace string, onState func(kube.State), h kube.Handler[dws.ClientMount]) error
}

// Server is the real Source.
type Server struct{ *kube.Client }

// Watch follows one resource in one namespace.
func (s Server) Watch(ctx context.Context, r kube.Resource, namespace string, onState func(kube.State), h kube.Handler[dws.ClientMount]) error {
	return kube.Watch(ctx, s.Client, r, namespace, kube.WatchOptions{OnState: onState}, h)
}

// Servers lists Servers objects of all namespaces by labels.
func (s Server) Servers(ctx context.Context, r kube.Resource, selector string) ([]*dws.Servers, error) {
	return kube.List[dws.Servers](ctx, s.Client, r, "", selector)
}

// handler connects a watch with the loop.
func (c *Controller) handler() kube.Handler[dws.ClientMount] {
	return kube.Handler[dws.ClientMount]{
		Replace:   c.Replace,
		Upsert:    c.Upsert,
		Delete:    func(_, name string) { c.Delete(name) },
		Malformed: func(_, name string, _ error) { c.do(func() { c.malformed[name] = true }) },
	}
}

// Follow supplies the controller with the objects of this node until ctx ends.
// It finds the served version first, and again when the server stops serving
// it; an API server that is down is waited for.
func (c *Controller) Follow(ctx context.Context, src Source) error {
	failures := 0
	for {
		version, err := src.Served(ctx, api.GroupDWS, api.VersionsDWS)
		if err == nil {
			failures = 0
			r := MountsResource(version)
			c.SetResource(r)
			err = src.Watch(ctx, r, c.o.Node, c.APIState, c.handler())
		} else if ctx.Err() == nil {
			c.APIState(kube.State{LastError: err, Since: time.Now()})
		}
		if ctx.Err() != nil {
			return nil
		}
		failures++
		c.o.Log.Debug("the watch ended, finding the served version again", "error", err, daemon.EventID(eventAPI))
		t := time.NewTimer(pause(failures, c.limits.Load().RetryMax, false))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
	}
}
