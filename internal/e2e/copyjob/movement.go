package copyjob

import (
	"net/http"
	"net/url"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// Movement reads the object that a uid names, nil when there is none.
func (n *Compute) Movement(uid string) lab.Object {
	n.t.Helper()
	o, err := n.Cluster.Get(n.Context(patience), "NnfDataMovement", n.namespaceOf(uid), uid)
	if err != nil && !lab.IsNotFound(err) {
		n.t.Fatal(err)
	}
	return o
}

// Movements counts the objects that this node has made.
func (n *Compute) Movements() int {
	n.t.Helper()
	query := "?labelSelector=" + url.QueryEscape(api.LabelInitiator+"="+n.Node)
	list, err := n.Cluster.Do(n.Context(patience), http.MethodGet, lab.Path("NnfDataMovement", "", "")+query, "", nil)
	if err != nil {
		n.t.Fatal(err)
	}
	items, _ := list["items"].([]any)
	return len(items)
}

// Runs writes what a rabbit writes when a movement's command has started.
func (n *Compute) Runs(uid string) {
	n.t.Helper()
	n.status(uid, lab.Object{"state": "Running", "startTime": now(), "commandStatus": map[string]any{"command": "dcp", "progress": 7}})
}

// Ends writes what a rabbit writes when it has ended.
func (n *Compute) Ends(uid, status string) {
	n.t.Helper()
	n.status(uid, lab.Object{"state": "Finished", "status": status, "startTime": now(), "endTime": now()})
}

func now() string { return time.Now().UTC().Format("2006-01-02T15:04:05.000000Z") }

func (n *Compute) status(uid string, status lab.Object) {
	n.t.Helper()
	n.write("NnfDataMovement", n.namespaceOf(uid), uid, "/status", status)
}

// write patches the status of an object.
func (n *Compute) write(kind, namespace, name, sub string, status lab.Object) {
	n.t.Helper()
	path := lab.Path(kind, namespace, name) + sub
	if _, err := n.Cluster.PatchPath(n.Context(patience), path, "application/merge-patch+json", lab.Object{"status": status}); err != nil {
		n.t.Fatal(err)
	}
}
