package packaging

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
)

const (
	dashboardFile = "examples/grafana/clientmountd.json"
	rulesFile     = "examples/prometheus/clientmountd.rules.yml"
)

// dashboard is what this test reads of a dashboard of Grafana.
type dashboard struct {
	UID, Title string
	Templating struct {
		List []struct {
			Name, Type, Definition string
			Query                  any
			Datasource             source
		}
	}
	Panels []struct {
		ID         int
		Type       string
		Title      string
		Datasource source
		GridPos    struct{ X, Y, W, H int }
		Targets    []struct {
			RefID, Expr string
			Datasource  source
		}
	}
}

type source struct{ Type, UID string }

// exported are the metrics of other programs that alerts use.
var exported = []string{"node_boot_time_seconds"}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	if err := json.Unmarshal([]byte(read(t, dashboardFile)), &d); err != nil {
		t.Fatal(err)
	}
	if d.UID == "" || d.Title == "" || len(d.Panels) < 10 {
		t.Fatalf("uid %q, title %q, %d panels", d.UID, d.Title, len(d.Panels))
	}
	return d
}

// The administrator chooses the data source. Panels do not overlap.
func TestDashboard(t *testing.T) {
	d := readDashboard(t)
	variables := map[string]string{}
	for _, v := range d.Templating.List {
		variables[v.Name] = v.Type
		if v.Type == "query" && v.Datasource.UID != "${datasource}" {
			t.Errorf("variable %s uses the data source %q", v.Name, v.Datasource.UID)
		}
	}
	if variables["datasource"] != "datasource" {
		t.Errorf("no variable for the data source: %v", variables)
	}
	used := regexp.MustCompile(`\$\{?([a-z_]+)`)
	cells, ids := map[[2]int]string{}, map[int]bool{}
	for _, p := range d.Panels {
		if p.Title == "" || ids[p.ID] || len(p.Targets) == 0 || p.Datasource.UID != "${datasource}" {
			t.Errorf("panel %d %q: no title or query, another data source, or a second panel with this id", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			if target.Datasource.UID != "${datasource}" || target.Expr == "" || !strings.Contains(target.Expr, `{job=~"$job", instance=~"$instance"`) {
				t.Errorf("%s: %+v", p.Title, target)
			}
			for _, v := range used.FindAllStringSubmatch(target.Expr, -1) {
				if variables[v[1]] == "" && v[1] != "__rate_interval" {
					t.Errorf("%s: no variable %s", p.Title, v[1])
				}
			}
		}
		g := p.GridPos
		if g.W < 1 || g.H < 1 || g.X < 0 || g.X+g.W > 24 {
			t.Errorf("%s: position %+v", p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" {
					t.Fatalf("%s overlaps %s", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
	}
}

// expressions returns all expressions of PromQL in the examples, by where they are, with values
// in place of Grafana's variables.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	variables := strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$instance", ".*")
	d := readDashboard(t)
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			out["panel "+p.Title+", "+target.RefID] = variables.Replace(target.Expr)
		}
	}
	values := regexp.MustCompile(`^label_values\((.*), \w+\)$`)
	for _, v := range d.Templating.List {
		if v.Type != "query" {
			continue
		}
		m := values.FindStringSubmatch(v.Definition)
		if m == nil {
			t.Errorf("variable %s: %q", v.Name, v.Definition)
			continue
		}
		out["variable "+v.Name] = variables.Replace(m[1])
	}
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, rulesFile)), &rules); err != nil {
		t.Fatal(err)
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			out["alert "+r.Alert] = r.Expr
		}
	}
	if len(out) < 25 {
		t.Fatalf("only %d expressions were found", len(out))
	}
	return out
}

// The examples use only metrics, labels and values that clientmountd writes, and each metric is
// in the dashboard or in an alert.
func TestExamplesUseMetricsThatExist(t *testing.T) {
	labels := map[string]map[string][]string{} // by metric and label: the values
	unused := map[string]bool{}
	for _, m := range clientmount.Metrics() {
		own := map[string][]string{"job": nil, "instance": nil}
		for _, l := range m.Labels {
			own[l.Name] = l.Values
		}
		unused[m.Name] = true
		if m.Type == "summary" {
			labels[m.Name+"_sum"], labels[m.Name+"_count"] = own, own
			continue
		}
		labels[m.Name] = own
	}
	selector := regexp.MustCompile(`\b((?:clientmountd|node)_[a-z_]+)(?:\{([^}]*)\})?`)
	matcher := regexp.MustCompile(`(\w+)(?:=~|=|!=|!~)"([^"]*)"`)
	for where, expr := range expressions(t) {
		found := selector.FindAllStringSubmatch(expr, -1)
		if len(found) == 0 {
			t.Errorf("%s uses no metric: %s", where, expr)
		}
		for _, s := range found {
			own, ok := labels[s[1]]
			if !ok {
				if !slices.Contains(exported, s[1]) {
					t.Errorf("%s: no metric %s", where, s[1])
				}
				continue
			}
			delete(unused, strings.TrimSuffix(strings.TrimSuffix(s[1], "_sum"), "_count"))
			for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
				values, ok := own[m[1]]
				if !ok {
					t.Errorf("%s: %s has no label %s", where, s[1], m[1])
				}
				for value := range strings.SplitSeq(m[2], "|") {
					if values != nil && !slices.Contains(values, value) {
						t.Errorf("%s: the label %s of %s never is %q", where, m[1], s[1], value)
					}
				}
			}
		}
		for _, by := range regexp.MustCompile(`\bby \(([^)]*)\)`).FindAllStringSubmatch(expr, -1) {
			for name := range strings.SplitSeq(by[1], ", ") {
				if _, ok := labels[found[0][1]][name]; !ok {
					t.Errorf("%s: %s has no label %s", where, found[0][1], name)
				}
			}
		}
	}
	delete(unused, "clientmountd_last_change_timestamp_seconds") // for people who read the file
	for name := range unused {
		t.Errorf("%s is neither in the dashboard nor in an alert", name)
	}
}

// Prometheus accepts all expressions, and the alerts fire for the nodes that have a problem only.
func TestExamplesInPromtool(t *testing.T) {
	require.Tool(t, "promtool")
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	run("check", "rules", rulesFile)
	run("test", "rules", "testdata/clientmountd.rules.test.yml")
	type rule map[string]string
	var rules []rule
	for where, expr := range expressions(t) {
		rules = append(rules, rule{"record": fmt.Sprint("test:", len(rules)), "expr": expr + " # " + where})
	}
	text, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "test", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	run("check", "rules", file)
}

// Each alert has a test that promtool runs.
func TestAlertsAreTested(t *testing.T) {
	tests := read(t, "testdata/clientmountd.rules.test.yml")
	for where := range expressions(t) {
		if name, ok := strings.CutPrefix(where, "alert "); ok && !strings.Contains(tests, "alertname: "+name+"\n        exp_alerts:\n") {
			t.Errorf("no test for %s", name)
		}
	}
}
