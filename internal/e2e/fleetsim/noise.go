package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// connections is the number of connections of a noise, each with one request at a time.
const connections = 8

// leastObject is less than the size of any ClientMount in a list, in bytes.
const leastObject = 1000

// target is the largest ratio of the p99 of a job with a noise and the manifests for flow
// control to that of a job without noise. It is reported, not checked: with few
// processors the API server is bound by its CPU, which flow control does not share out.
const target = 2

// shared is the FlowSchema of all service accounts without one of their own.
const shared = "service-accounts"

// sharedObjects is the end of the name of the FlowSchema for objects that all nodes read.
const sharedObjects = "-shared"

// noise is a client that lists all ClientMounts in a loop, like a monitoring
// script that is not written with care. It does not pause after a rejection either.
type noise struct {
	stop context.CancelFunc
	all  sync.WaitGroup

	lists, rejected atomic.Int64
	largest         atomic.Int64 // size of the largest list, in bytes
}

var noiseAccount = product.Account{Name: "fleet-noise", Namespace: "default"}

// startNoise starts a noise with an account of its own.
func (s *simulation) startNoise() (*noise, error) {
	token, err := s.accounts.create(s.ctx, noiseAccount, fixture.Rule(api.GroupDWS, "clientmounts", "list"))
	if err != nil {
		return nil, err
	}
	path, err := s.accounts.kubeconfig(noiseAccount.Name, token)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(s.ctx)
	n := &noise{stop: stop}
	for range connections {
		client, err := lab.NewClient(path)
		if err != nil {
			stop()
			return nil, err
		}
		n.all.Go(func() { defer client.Close(); n.run(ctx, client) })
	}
	return n, nil
}

func (n *noise) run(ctx context.Context, client *lab.Client) {
	for ctx.Err() == nil {
		size, err := client.Read(ctx, lab.Path("ClientMount", "", ""), io.Discard)
		switch code, _ := asStatus(err); {
		case err == nil:
			n.lists.Add(1)
			for {
				old := n.largest.Load()
				if size <= old || n.largest.CompareAndSwap(old, size) {
					break
				}
			}
		case code == http.StatusTooManyRequests:
			n.rejected.Add(1)
		default:
			_ = pause(ctx, 100*time.Millisecond)
		}
	}
}

// end stops the client.
func (n *noise) end() {
	n.stop()
	n.all.Wait()
}

// noisyJobs measures a job while a client lists all ClientMounts in a loop: without and
// with the manifests for flow control that nnf-deploy installs. The requests of the nodes
// must be in their own priority level, and only those.
func (s *simulation) noisyJobs() error {
	if err := s.measure("job while a client lists all objects", func(r *row) error { return s.noisyJob(r, shared) }); err != nil {
		return err
	}
	remove, err := s.applyFlowControl("clientmountd")
	if err != nil {
		return err
	}
	if err := s.measure("the same with flow control", func(r *row) error { return s.noisyJob(r, product.Daemons[0].Account.Name) }); err != nil {
		return err
	}
	return remove()
}

// applyFlowControl applies the manifest for flow control of a daemon, and waits until the API
// server uses it. remove deletes its objects.
func (s *simulation) applyFlowControl(daemon string) (remove func() error, err error) {
	objects, err := flowControl(daemon)
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		if _, err := s.cluster.Apply(s.ctx, o); err != nil {
			return nil, err
		}
	}
	d, _ := product.Of(daemon)
	token, err := os.ReadFile(filepath.Join(s.cluster.Dir, daemon, product.TokenFile))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err = wait.For(ctx, "requests in flow schema "+d.Account.Name, func() (bool, error) {
		if err := s.accounts.await(ctx, token, http.StatusOK); err != nil {
			return false, err
		}
		now, err := s.flows()
		return now[d.Account.Name].dispatched > 0, err
	})
	return func() error {
		for _, o := range slices.Backward(objects) { // the schema first
			if err := s.cluster.Delete(s.ctx, o.String("kind"), "", o.Name()); err != nil {
				return err
			}
		}
		return nil
	}, err
}

// noisyJob measures a job with a noise. The requests of the nodes must belong to a
// FlowSchema.
func (s *simulation) noisyJob(r *row, schema string) error {
	n, err := s.startNoise()
	if err != nil {
		return err
	}
	defer n.end()
	before, err := s.flows()
	if err != nil {
		return err
	}
	r.checks = append(r.checks, s.nothingLeft)
	if schema != shared {
		r.checks = append(r.checks, s.lifeCosts)
	}
	if err := s.runJob(r, s.part, s.part); err != nil {
		return err
	}
	took := time.Since(r.started)
	lists := n.lists.Load()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if err := wait.For(ctx, "a list of all ClientMounts", func() (bool, error) {
		return n.largest.Load() >= int64(len(s.part))*leastObject, nil
	}); err != nil {
		return err
	}
	if err := s.endJob(s.part); err != nil {
		return err
	}
	n.end()
	after, err := s.flows()
	if err != nil {
		return err
	}
	r.checks = append(r.checks, func(r *row) { r.wrong(misplaced(before, after, schema, r.sum, n.lists.Load())) })
	ratio := r.P99 / s.quiet.P99
	r.How += fmt.Sprintf("; p99 is %.2f times that of the %s", ratio, s.quiet.Scenario)
	if schema != shared {
		r.How += fmt.Sprintf(" (target: %d, %s)", target, map[bool]string{true: "reached", false: "MISSED"}[ratio <= target])
	}
	r.How += fmt.Sprintf("; the client listed %.1f times per second, up to %.1f MB; %d of its requests were rejected", float64(lists)/took.Seconds(), float64(n.largest.Load())/1e6, n.rejected.Load())
	return nil
}

// flows are the counters of a FlowSchema, by its name.
type flows map[string]struct{ dispatched, rejected int64 }

// flows reads the counters of the API server.
func (s *simulation) flows() (flows, error) {
	var text strings.Builder
	if _, err := s.cluster.Read(s.ctx, "/metrics", &text); err != nil {
		return nil, err
	}
	return readFlows(text.String())
}

// readFlows reads the counters from metrics in the text format of Prometheus.
func readFlows(metrics string) (flows, error) {
	out := flows{}
	for line := range strings.Lines(metrics) {
		name, rest, _ := strings.Cut(line, "{")
		labels, value, ok := strings.Cut(rest, "} ")
		if !ok || name != "apiserver_flowcontrol_dispatched_requests_total" && name != "apiserver_flowcontrol_rejected_requests_total" {
			continue
		}
		_, label, _ := strings.Cut(labels, `flow_schema="`)
		schema, _, _ := strings.Cut(label, `"`)
		n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", line, err)
		}
		f := out[schema]
		if strings.Contains(name, "dispatched") {
			f.dispatched += int64(n)
		} else {
			f.rejected += int64(n)
		}
		out[schema] = f
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the metrics of the API server have no counters of flow control")
	}
	return out, nil
}

// misplaced returns what is wrong about the requests of the nodes and of a noise that were
// counted between two readings. If the nodes have a schema of their own, it must have
// their requests and no others, and none of them may fail. All other accounts share one.
func misplaced(before, after flows, schema string, nodes counts, lists int64) (wrong []string) {
	least := lists
	if schema == shared {
		least += nodes.total() - nodes.failures()
	} else {
		var own, rejected int64
		for _, name := range []string{schema, schema + sharedObjects} {
			own += after[name].dispatched - before[name].dispatched
			rejected += after[name].rejected - before[name].rejected
		}
		if own != nodes.total() || rejected != 0 || nodes.failures() != 0 {
			wrong = append(wrong, fmt.Sprintf("flow schema %s: %d requests and %d rejected ones; the nodes sent %d, of which %d failed", schema, own, rejected, nodes.total(), nodes.failures()))
		}
	}
	if others := after[shared].dispatched - before[shared].dispatched; others < least {
		wrong = append(wrong, fmt.Sprintf("flow schema %s: %d requests, expected at least %d", shared, others, least))
	}
	return wrong
}

// flowControl reads the manifest for flow control of a daemon.
func flowControl(daemon string) (objects []lab.Object, err error) {
	root, err := lab.Repository()
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(root, "packaging", "manifests", daemon+"-flowcontrol.yaml"))
	if err != nil {
		return nil, err
	}
	for _, document := range bytes.Split(text, []byte("\n---\n")) {
		var o lab.Object
		if err := yaml.Unmarshal(document, &o); err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
	return objects, nil
}
