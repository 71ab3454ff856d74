// Package budget tests static properties: the size of each program, its modules,
// the permitted imports of each package, and package comments. They use the sources and
// the linker. Measurements are in internal/e2e/bench.
//
// It must not know what the daemons do.
package budget

import "maps"

const module = "github.com/compute-daemons/compute-daemons"

// budget has the limits of a program.
type budget struct {
	maxSize   int64             // bytes
	tool      bool              // not a daemon: the lists of all daemons do not apply
	modules   map[string]string // permitted modules, besides those of all daemons
	forbidden map[string]string // forbidden packages, besides those of all daemons
	except    map[string]string // "importer package": reason for the exception
}

var budgets = map[string]budget{
	"clientmountd": {
		// 12.2 before the sub-commands that report about the node. doctor and its bundle have 0.7:
		// the checks, and archive/tar. Proxies of the daemon's environment have 0.1: httpproxy links
		// the tables of golang.org/x/net/idna, in addition to those in net/http. The renewal of the
		// token has 0.1.
		maxSize: 14_000_000,
		modules: map[string]string{
			"github.com/mattn/go-runewidth": "width of table cells in columns",
			"github.com/rivo/uniseg":        "go-runewidth: characters of several code points",
			"github.com/moby/sys/mountinfo": "the escapes and optional fields of /proc/self/mountinfo",
		},
		forbidden: map[string]string{
			"google.golang.org/grpc":     "clientmountd only connects to the API server",
			"google.golang.org/protobuf": "2 MB, and clientmountd does not use protocol buffers",
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
			"golang.org/x/net/trace":                  "traces of gRPC: html/template, and every request is kept in memory; build with the tag grpcnotrace",
			"github.com/gogo/protobuf":                "a second protobuf; the Kubernetes types are read as JSON",
			"google.golang.org/grpc/channelz/service": "statistics of gRPC, accessible to all clients",
			"google.golang.org/grpc/xds":              "a service mesh client",
			"go.opentelemetry.io":                     "sends traces to other hosts",
			"github.com/bufbuild":                     "compiles .proto files, only in tests",
			module + "/internal/node":                 "nnf-dm runs no commands and mounts nothing",
			module + "/internal/clientmount":          "part of the other daemon",
		},
		except: map[string]string{
			"google.golang.org/grpc runtime/pprof": "labels of goroutines; a test below checks that profiles are not linked",
		},
	},
	"nnf-dmctl": {
		maxSize: 12_000_000,
		tool:    true,
		modules: map[string]string{
			"google.golang.org/grpc":                    "the socket's protocol",
			"google.golang.org/protobuf":                "its messages",
			"google.golang.org/genproto/googleapis/rpc": "the reason in errors of version 2",

			"github.com/spf13/pflag":        "GNU-style flags",
			"github.com/vbauerster/mpb/v8":  "the progress bar: redrawn in place, cut to the width of the terminal, with messages above it",
			"github.com/mattn/go-runewidth": "width of a text in columns, for the message below the bar; mpb needs it as well",
			"golang.org/x/sys":              "the size of the terminal",
			"golang.org/x/term":             "detects terminals",

			"github.com/VividCortex/ewma":   "mpb: speeds, not used",
			"github.com/acarl005/stripansi": "mpb: text without colours",
			"github.com/rivo/uniseg":        "go-runewidth: characters of several code points",
			"golang.org/x/net":              "grpc: HTTP/2",
			"golang.org/x/text":             "x/net: host names",
		},
		forbidden: map[string]string{
			"k8s.io":                                  "nnf-dmctl only connects to the daemon",
			"sigs.k8s.io":                             "the same",
			module + "/internal/datamovement/server":  "part of the daemon",
			module + "/internal/kube":                 "the same",
			module + "/packaging":                     "manual pages are files, not part of a program",
			"golang.org/x/net/trace":                  "traces of gRPC: html/template; build with the tag grpcnotrace",
			"google.golang.org/grpc/channelz/service": "statistics of gRPC",
			"google.golang.org/grpc/xds":              "a service mesh client",
			"go.opentelemetry.io":                     "sends traces to other hosts",
		},
	},
	"nnf-deploy": {
		// The accounts of single nodes have 0.15.
		maxSize: 13_200_000,
		tool:    true,
		// It connects to the API server like the daemons, but is not a daemon.
		modules: with(without(modules, "github.com/BurntSushi/toml", "github.com/coreos/go-systemd/v22", "github.com/lmittmann/tint"), map[string]string{
			"github.com/vbauerster/mpb/v8":  "the progress bar, as in nnf-dmctl",
			"go.yaml.in/yaml/v3":            "files of existing installations: unknown keys with their lines; v2, which client-go links, does not report them",
			"github.com/mattn/go-runewidth": "width of table cells in columns; mpb needs it as well",
			"github.com/VividCortex/ewma":   "mpb: speeds, not used",
			"github.com/acarl005/stripansi": "mpb: text without colours",
			"github.com/rivo/uniseg":        "go-runewidth: characters of several code points",
		}),
		forbidden: map[string]string{
			"google.golang.org/grpc":          "nnf-deploy uses the API server and ssh",
			"google.golang.org/protobuf":      "the same",
			"golang.org/x/crypto/ssh":         "ssh has the keys, hosts and jump hosts of the administrator; another implementation does not",
			"k8s.io/api":                      "the types of all of Kubernetes; we use six, with few fields",
			"k8s.io/client-go/kubernetes":     "the clients of all of Kubernetes",
			"sigs.k8s.io/controller-runtime":  "nnf-deploy is not a controller",
			module + "/internal/node":         "code for the nodes is not linked into nnf-deploy",
			module + "/internal/clientmount":  "the same",
			module + "/internal/datamovement": "the same",
			module + "/packaging":             "manual pages are files, not part of a program",
		},
	},
}

// modules are the permitted modules of all daemons, with the reasons. The test fails for
// a module that is not listed, and for a listed module that is not linked.
var modules = map[string]string{
	"github.com/BurntSushi/toml":       "the configuration file, with the positions of keys for error messages",
	"github.com/coreos/go-systemd/v22": "sd_notify",
	"github.com/lmittmann/tint":        "log lines on a terminal",
	"github.com/spf13/pflag":           "flags as people know them; client-go needs it as well",
	"golang.org/x/sys":                 "system calls",
	"golang.org/x/term":                "detects terminals",
	"k8s.io/apimachinery":              "metadata of objects, the encoding of watch events, errors of the API server",
	"k8s.io/client-go":                 "rest and clientcmd: requests to the API server, renewed credentials",

	"golang.org/x/net":        "client-go: HTTP/2",
	"golang.org/x/oauth2":     "client-go: tokens that are reloaded from their file",
	"golang.org/x/text":       "x/net: host names",
	"golang.org/x/time":       "client-go: the limit of requests per second; nnf-dm: the share of each user",
	"k8s.io/klog/v2":          "client-go: its log, which is redirected to our log",
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

// without returns list without the given names.
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

// forbidden are packages with a high cost for little use, or that open ports. A name
// includes all packages below it.
var forbidden = map[string]string{
	"sigs.k8s.io/controller-runtime":        "30 MB for one watch",
	"k8s.io/api":                            "the types of all of Kubernetes; we use four",
	"k8s.io/client-go/kubernetes":           "the clients of all of Kubernetes",
	"k8s.io/client-go/informers":            "caches of whole namespaces",
	"k8s.io/client-go/dynamic":              "maps instead of types",
	"k8s.io/client-go/discovery":            "reads and caches the descriptions of all groups",
	"k8s.io/client-go/tools/leaderelection": "nodes do not need leader election",
	"k8s.io/client-go/tools/record":         "events are writes to the API server",
	"github.com/prometheus/client_golang":   "needs a port",
	"net/http/pprof":                        "needs a port, and exposes memory",
	"expvar":                                "needs a port",
	"runtime/pprof":                         "enables memory profiling in the runtime",
	"text/template":                         "calls methods by name, so the linker keeps all of them",
	"html/template":                         "the same",
	"plugin":                                "the same",
	"net/http/cgi":                          "a web server",
	"net/http/httptest":                     "a web server for tests",
	"testing":                               "only for tests",
	module + "/packaging":                   "manual pages and the catalogue are files, not part of a program",
}

// imports has the permitted imports of each package within the module (TestImports).
var imports = map[string]string{
	"version": "", "text": "",
	"text/checklist": "text",
	"text/hint":      "text",
	"text/usage":     "text text/hint", // usage errors of daemons and tools
	"api":            "", "api/dws": "api", "api/nnf": "api api/dws", "api/lus": "", "api/datamovement": "", "api/datamovement/v2": "",
	"safepath":            "text",
	"node":                "safepath text",
	"unixsocket":          "safepath",
	"config":              "safepath text text/usage",
	"kube":                "api safepath text",         // of api only the form of permissions; safepath for the renewed token
	"systemd":             "mountstate text text/hint", // systemctl and unit files; independent of the services; of mountstate the form of a token
	"systemd/fakesystemd": "",                          // for tests
	"daemon":              "config daemon/oneprocessor kube mountstate safepath systemd text text/hint text/usage version",
	"daemon/oneprocessor": "",

	"timeline":              "mountstate text",
	"timeline/page":         "mountstate text timeline",
	"timeline/sample":       "mountstate", // for tests
	"mountstate":            "text",       // documents about mounts, for clientmountd and nnf-deploy
	"clientmount":           "api api/dws api/nnf clientmount/failpoint clientmount/plan config daemon kube mountstate node safepath systemd text version",
	"clientmount/doctor":    "api api/dws clientmount clientmount/plan config kube mountstate node safepath systemd text text/checklist text/hint text/usage",
	"clientmount/plan":      "api api/dws api/nnf safepath text",
	"clientmount/failpoint": "",

	"datamovement":                   "api api/datamovement api/datamovement/v2 api/dws api/lus api/nnf kube text", // pure decisions
	"datamovement/server":            "api api/datamovement api/datamovement/v2 api/dws api/lus api/nnf config daemon datamovement kube mountstate systemd text unixsocket version",
	"datamovement/client":            "api/datamovement api/datamovement/v2 text/hint", // the client library; independent of the daemon
	"datamovement/client/fakedaemon": "api/datamovement api/datamovement/v2",           // for tests

	"deploy/nodeset":         "",                                                    // host lists; independent of the inventory
	"deploy/product":         "api systemd",                                         // files, units and accounts of the daemons
	"deploy/inventory":       "api api/dws deploy/nodeset deploy/product kube text", // what to install on which node
	"deploy/credentials":     "api deploy/identities deploy/inventory deploy/product kube safepath text/hint",
	"deploy/identities":      "api api/dws api/nnf deploy/inventory deploy/product",          // accounts of single nodes
	"deploy/provision":       "api api/nnf deploy/identities deploy/product kube",            // these accounts on the API server
	"deploy/payload":         "deploy/product",                                               // packages and programs on the administrator's host
	"deploy/remote":          "",                                                             // runs scripts on nodes; independent of the scripts
	"deploy/target":          "api deploy/payload deploy/product deploy/remote kube systemd", // one node; of systemd only the form of a status
	"deploy/fleet":           "deploy/nodeset safepath text",                                 // many nodes; independent of the work
	"deploy/remote/fakenode": "e2e/executable deploy/product deploy/remote",                  // for tests

	"cli":              "text text/hint text/usage version", // the command line code of the tools
	"cli/screen":       "text",
	"cli/table":        "text",
	"cli/clientmountd": "cli cli/table clientmount clientmount/doctor config daemon mountstate node systemd text text/checklist text/hint text/usage timeline version",
	"cli/dmctl":        "cli cli/screen cli/table datamovement/client text text/checklist text/hint text/usage version",
	"cli/deploy":       "cli cli/screen cli/table deploy/credentials deploy/fleet deploy/identities deploy/inventory deploy/nodeset deploy/payload deploy/product deploy/provision deploy/remote deploy/target kube mountstate text text/checklist text/hint text/usage timeline timeline/page version",
}

// MaxSize returns the maximum size of the release binary of a program, in bytes.
func MaxSize(program string) int64 { return budgets[program].maxSize }
