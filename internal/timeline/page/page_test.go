package page

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/timeline/sample"
)

// maxPage is the maximum size of a page in bytes.
const maxPage = 4_000_000

func write(t *testing.T, c *Contents) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, c); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func contents(nodes []*mountstate.Timeline) *Contents {
	return &Contents{Workflow: sample.Workflow, Time: sample.Zero.Add(time.Hour), Nodes: nodes, Missing: []Group{{"compute-[11137-11140]", "not reachable"}}}
}

// The page of a large system has at most 4 MB, with the steps of all nodes; if each node has twice
// as many steps, with those of the slowest nodes.
func TestSize(t *testing.T) {
	nodes := sample.Fleet(11136)
	page := write(t, contents(nodes))
	t.Logf("%d bytes for %d nodes", len(page), len(nodes))
	if len(page) > maxPage {
		t.Errorf("%d bytes", len(page))
	}
	for _, n := range nodes {
		more := sample.Node(n.Node, 5).Lives[0]
		more.ClientMount = "second"
		third := more
		third.ClientMount = "third"
		n.Lives = append(n.Lives, more, third)
	}
	page = write(t, contents(nodes))
	t.Logf("%d bytes with three times as many steps", len(page))
	if len(page) > maxPage || !strings.Contains(page, "......") {
		t.Errorf("%d bytes", len(page))
	}
}

// The page refers to nothing outside, and its policy permits only its own script and style.
func TestSelfContained(t *testing.T) {
	page := write(t, contents(sample.Fleet(3)))
	policy := regexp.MustCompile(`content="(default-src 'none'; style-src 'sha256-[^']+'; script-src 'sha256-[^']+'; base-uri 'none'; form-action 'none')"`)
	if !policy.MatchString(page) {
		t.Error("no content security policy")
	}
	plain := strings.ReplaceAll(page, "http://www.w3.org/2000/svg", "")
	for _, word := range []string{"http:", "https:", "src=", "href", "url(", "@import", "innerHTML", "insertAdjacent", "document.write", "eval(", "@DATA@"} {
		if strings.Contains(plain, word) {
			t.Errorf("the page contains %s", word)
		}
	}
}

// hostile are texts that a compromised node could send.
var hostile = []string{
	`</script><script>document.documentElement.dataset.owned = "1"</script>`, `<!--<script>`, `"]}</SCRIPT ><img src=x onerror="document.documentElement.dataset.owned = 1">`,
	"\u2028\u2029\x00\x1b[31m\xff", `@SCRIPT@`, `@DATA@`, `javascript:alert(1)`, `__proto__`, `constructor`, `');document.documentElement.dataset.owned=1;('`,
}

// hostileNodes has these texts in all fields.
func hostileNodes() []*mountstate.Timeline {
	nodes := sample.Fleet(60)
	for i, n := range nodes {
		evil := hostile[i%len(hostile)]
		l := &n.Lives[0]
		n.Node, l.ClientMount, l.Workflow = evil, evil, evil
		for j := range l.Steps {
			s := &l.Steps[j]
			s.Path, s.Error = evil, evil
			if j%2 == 0 {
				s.Name, s.Kind = evil, evil
			}
		}
	}
	return nodes
}

func hostileContents() *Contents {
	c := contents(hostileNodes())
	c.Workflow = hostile[0]
	for _, h := range hostile {
		c.Missing = append(c.Missing, Group{h, h})
	}
	return c
}

// Texts of nodes are only in the JSON, where nothing can end the script element.
func TestHostileTexts(t *testing.T) {
	page := write(t, hostileContents())
	clean := write(t, contents(sample.Fleet(60)))
	inside := regexp.MustCompile(`(?s)(.*<script type="application/json" id="data">)([^<>&]*)(</script>.*)`)
	have, want := inside.FindStringSubmatch(page), inside.FindStringSubmatch(clean)
	if have == nil || want == nil {
		t.Fatal("the JSON contains a character that must be escaped")
	}
	if have[1] != want[1] || have[3] != want[3] {
		t.Error("texts of nodes change the page outside the JSON")
	}
}
