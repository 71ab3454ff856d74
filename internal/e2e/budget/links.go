// Package budget holds tests of promises that no other test notices: how large a
// program is, which modules it is linked from, which package may import which, and
// that every package has a comment. The sources and the linker tell all of it; what
// must be measured is measured by internal/e2e/bench.
//
// It must not know what the daemons do.
package budget

import "maps"

const module = "github.com/compute-daemons/compute-daemons"

// budget is what is promised of one binary.
type budget struct {
	maxSize   int64             // bytes
	tool      bool              // no daemon: what holds for all of those does not hold
	modules   map[string]string // it may be linked from, beside those of all daemons
	forbidden map[string]string // packages, beside those of all daemons
	except    map[string]string // "importer package": why this one may
}

var budgets = map[string]budget{
	"clientmountd": {
		// 12.0 until the registry of mounts, the search for holders of a device and
		// the child for system calls that may block; all of it is code of this tree.
		maxSize: 12_400_000,
		modules: map[string]string{
			"github.com/moby/sys/mountinfo": "the escapes and optional fields of /proc/self/mountinfo",
		},
		forbidden: map[string]string{
			"google.golang.org/grpc":     "clientmountd speaks only to the API server",
			"google.golang.org/protobuf": "2 MB; nothing here is in protocol buffers",
			"github.com/gogo/protobuf":   "the same",
		},
	},
	"nnf-dm": {
		maxSize: 16_000_000,
		modules: map[string]string{
			"google.golang.org/grpc":                    "the socket's protocol, which existing clients speak",
			"google.golang.org/protobuf":                "its messages",
			"google.golang.org/genproto/googleapis/rpc": "the reason in errors of version 2",
		},
		forbidden: map[string]string{
			"golang.org/x/net/trace":                  "gRPC's traces: html/template, and every request kept in memory; build with the tag grpcnotrace",
			"github.com/gogo/protobuf":                "a second protobuf; the Kubernetes types are read as JSON",
			"google.golang.org/grpc/channelz/service": "gRPC's own statistics, for everybody who asks",
			"google.golang.org/grpc/xds":              "a client of service meshes",
			"go.opentelemetry.io":                     "traces to somewhere else",
			"github.com/bufbuild":                     "makes the code from .proto files, in tests",
			module + "/internal/node":                 "it runs nothing and mounts nothing",
			module + "/internal/clientmount":          "it is the other daemon",
		},
		except: map[string]string{
			"google.golang.org/grpc runtime/pprof": "labels of goroutines; that the profiles stay out is tested below",
		},
	},
	"nnf-dmctl": {
		maxSize: 12_000_000,
		tool:    true,
		modules: map[string]string{
			"google.golang.org/grpc":                    "the socket's protocol",
			"google.golang.org/protobuf":                "its messages",
			"google.golang.org/genproto/googleapis/rpc": "the reason in errors of version 2",

			"github.com/spf13/pflag":        "flags as people know them",
			"github.com/vbauerster/mpb/v8":  "the progress bar: redrawn in place, cut to the terminal's width, lines of ours above it",
			"github.com/mattn/go-runewidth": "how many columns a text takes, for the message below the bar; mpb needs it as well",
			"golang.org/x/sys":              "the size of the terminal",
			"golang.org/x/term":             "is it a terminal",

			"github.com/VividCortex/ewma":   "mpb: speeds, not used",
			"github.com/acarl005/stripansi": "mpb: what a text looks like without its colours",
			"github.com/rivo/uniseg":        "go-runewidth: characters of several code points",
			"golang.org/x/net":              "grpc: HTTP/2",
			"golang.org/x/text":             "x/net: names of hosts",
		},
		forbidden: map[string]string{
			"k8s.io":                                  "it speaks only to the daemon",
			"sigs.k8s.io":                             "the same",
			module + "/internal/datamovement/server":  "what the daemon does is not its business",
			module + "/internal/kube":                 "the same",
			module + "/packaging":                     "manual pages are files, not parts of a program",
			"golang.org/x/net/trace":                  "gRPC's traces: html/template; build with the tag grpcnotrace",
			"google.golang.org/grpc/channelz/service": "gRPC's own statistics",
			"google.golang.org/grpc/xds":              "a client of service meshes",
			"go.opentelemetry.io":                     "traces to somewhere else",
		},
	},
	"nnf-deploy": {
		maxSize: 13_000_000,
		tool:    true,
		// It reaches the API server as the daemons do, and is no daemon.
		modules: with(without(modules, "github.com/BurntSushi/toml", "github.com/coreos/go-systemd/v22", "github.com/lmittmann/tint"), map[string]string{
			"github.com/vbauerster/mpb/v8":  "the progress bar, as in nnf-dmctl",
			"go.yaml.in/yaml/v3":            "files of existing installations: unknown keys with their lines, which v2, that client-go links, does not give",
			"github.com/mattn/go-runewidth": "how many columns a cell of the table takes; mpb needs it as well",
			"github.com/VividCortex/ewma":   "mpb: speeds, not used",
			"github.com/acarl005/stripansi": "mpb: what a text looks like without its colours",
			"github.com/rivo/uniseg":        "go-runewidth: characters of several code points",
		}),
		forbidden: map[string]string{
			"google.golang.org/grpc":          "it speaks to the API server and to ssh",
			"google.golang.org/protobuf":      "the same",
			"golang.org/x/crypto/ssh":         "the administrator's own ssh knows the keys, hosts and jumps; a second one would not",
			"k8s.io/api":                      "the types of all of Kubernetes; ours are six, with the fields that we touch",
			"k8s.io/client-go/kubernetes":     "the clients of all of Kubernetes",
			"sigs.k8s.io/controller-runtime":  "it controls nothing",
			module + "/internal/node":         "what runs on a node is not linked into this",
			module + "/internal/clientmount":  "the same",
			module + "/internal/datamovement": "the same",
			module + "/packaging":             "manual pages are files, not parts of a program",
		},
	},
}

// modules is what every daemon may be linked from, each with the reason. A
// module that is not here fails the test; so does one that nothing needs any
// more.
var modules = map[string]string{
	"github.com/BurntSushi/toml":       "the configuration file, with the positions of keys for error messages",
	"github.com/coreos/go-systemd/v22": "sd_notify",
	"github.com/lmittmann/tint":        "log lines on a terminal",
	"github.com/spf13/pflag":           "flags as people know them; client-go needs it as well",
	"golang.org/x/sys":                 "system calls",
	"golang.org/x/term":                "is it a terminal",
	"k8s.io/apimachinery":              "metadata of objects, the encoding of watch events, errors of the API server",
	"k8s.io/client-go":                 "rest and clientcmd: requests to the API server, credentials that are renewed",

	"golang.org/x/net":        "client-go: HTTP/2",
	"golang.org/x/oauth2":     "client-go: tokens that are read again from their file",
	"golang.org/x/text":       "x/net: names of hosts",
	"golang.org/x/time":       "client-go: the limit of requests per second; nnf-dm: the share of each user",
	"k8s.io/klog/v2":          "client-go: its log, which goes to ours",
	"k8s.io/utils":            "client-go: clocks, pointers",
	"sigs.k8s.io/yaml":        "client-go: kubeconfig files",
	"go.yaml.in/yaml/v2":      "sigs.k8s.io/yaml, structured-merge-diff",
	"github.com/go-logr/logr": "klog: its interface",

	"github.com/davecgh/go-spew":           "k8s.io/utils: dump, by client-go's credential plug-ins",
	"github.com/fxamacker/cbor/v2":         "apimachinery: registered as an encoding, not used",
	"github.com/x448/float16":              "cbor",
	"github.com/json-iterator/go":          "structured-merge-diff",
	"github.com/modern-go/concurrent":      "json-iterator",
	"github.com/modern-go/reflect2":        "json-iterator",
	"github.com/munnerz/goautoneg":         "client-go: content types of errors",
	"gopkg.in/inf.v0":                      "apimachinery: quantities",
	"k8s.io/kube-openapi":                  "apimachinery: names of types",
	"sigs.k8s.io/json":                     "apimachinery: JSON with exact cases",
	"sigs.k8s.io/randfill":                 "apimachinery: interfaces of its generated code",
	"sigs.k8s.io/structured-merge-diff/v6": "apimachinery: unstructured values",
}

// without is a list without some of it.
func without(list map[string]string, names ...string) map[string]string {
	out := maps.Clone(list)
	for _, n := range names {
		delete(out, n)
	}
	return out
}

func with(list, more map[string]string) map[string]string {
	out := maps.Clone(list)
	maps.Copy(out, more)
	return out
}

// forbidden packages would cost every daemon much for little, or open what must
// stay shut. A name stands for everything below it, too.
var forbidden = map[string]string{
	"sigs.k8s.io/controller-runtime":        "30 MB more for one watch",
	"k8s.io/api":                            "the types of all of Kubernetes; ours are four",
	"k8s.io/client-go/kubernetes":           "the clients of all of Kubernetes",
	"k8s.io/client-go/informers":            "caches of whole namespaces",
	"k8s.io/client-go/dynamic":              "maps instead of types",
	"k8s.io/client-go/discovery":            "reads and keeps the descriptions of all groups",
	"k8s.io/client-go/tools/leaderelection": "a node needs no election",
	"k8s.io/client-go/tools/record":         "events in the API server are writes",
	"github.com/prometheus/client_golang":   "needs a port",
	"net/http/pprof":                        "needs a port, and gives memory away",
	"expvar":                                "needs a port",
	"runtime/pprof":                         "turns memory profiling on in the runtime",
	"text/template":                         "calls methods by name, so the linker keeps all of them",
	"html/template":                         "the same",
	"plugin":                                "the same",
	"net/http/cgi":                          "a web server",
	"net/http/httptest":                     "a web server, of tests",
	"testing":                               "belongs to tests",
	module + "/packaging":                   "manual pages and explanations are files, not parts of a program",
}

// imports lists what each package may import within the module, for TestImports.
var imports = map[string]string{
	"version": "", "text": "",
	"text/hint":  "text",
	"text/usage": "text text/hint", // wrong command lines, of daemons and tools alike
	"api":        "", "api/dws": "api", "api/nnf": "api api/dws", "api/lus": "", "api/datamovement": "", "api/datamovement/v2": "",
	"safepath":            "text",
	"node":                "safepath text",
	"unixsocket":          "safepath",
	"config":              "safepath text text/usage",
	"kube":                "text",
	"systemd":             "text text/hint", // systemctl and files of units; what the units run is not its business
	"systemd/fakesystemd": "",               // for tests
	"daemon":              "config daemon/oneprocessor kube systemd text text/hint text/usage version",
	"daemon/oneprocessor": "",

	"clientmount":           "api api/dws api/nnf clientmount/failpoint clientmount/plan config daemon kube node safepath systemd text",
	"clientmount/plan":      "api api/dws api/nnf safepath text",
	"clientmount/failpoint": "",

	"datamovement":                   "api api/datamovement api/datamovement/v2 api/dws api/lus api/nnf kube text", // decides, and moves nothing
	"datamovement/server":            "api api/datamovement api/datamovement/v2 api/dws api/lus api/nnf config daemon datamovement kube systemd text unixsocket version",
	"datamovement/client":            "api/datamovement api/datamovement/v2 text/hint", // the users' side; what the daemon does is not its business
	"datamovement/client/fakedaemon": "api/datamovement api/datamovement/v2",           // for tests

	"deploy/nodeset":         "",                                                    // host lists; which nodes there are is not its business
	"deploy/product":         "api systemd",                                         // what the daemons consist of
	"deploy/inventory":       "api api/dws deploy/nodeset deploy/product kube text", // what is to be installed where
	"deploy/credentials":     "deploy/inventory deploy/product kube safepath",
	"deploy/payload":         "deploy/product",                                           // packages and programs on the administrator's host
	"deploy/remote":          "",                                                         // scripts on nodes; what they do is not its business
	"deploy/target":          "deploy/payload deploy/product deploy/remote kube systemd", // one node; of systemd only what a status looks like
	"deploy/fleet":           "deploy/nodeset safepath text",                             // many; what is done there is not its business
	"deploy/remote/fakenode": "e2e/executable deploy/product deploy/remote",              // for tests

	"cli":        "text text/hint text/usage version", // the command line that the tools share
	"cli/screen": "text",
	"cli/dmctl":  "cli cli/screen datamovement/client text text/hint text/usage version",
	"cli/deploy": "cli cli/screen deploy/credentials deploy/fleet deploy/inventory deploy/nodeset deploy/payload deploy/product deploy/remote deploy/target kube text text/hint text/usage version",
}

// MaxSize is how large the released binary of a program may be, in bytes.
func MaxSize(program string) int64 { return budgets[program].maxSize }
