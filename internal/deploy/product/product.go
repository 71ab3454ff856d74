// Package product is the table of facts about the two daemons that nnf-deploy uses: their
// programs, units, paths, owners, settings, service accounts and rights. The packages and
// the configuration of the daemons contain the same facts in their own formats; the tests
// of this package compare them.
//
// It must not depend on how these facts are used.
package product

import (
	"regexp"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
	units "github.com/compute-daemons/compute-daemons/systemd"
)

// Directories on a node.
const (
	BinDirectory     = "/usr/bin"
	ConfigDirectory  = "/etc"
	UnitDirectory    = systemd.UnitDirectory    // of the administrator and of "PROGRAM install"
	PackageDirectory = systemd.PackageDirectory // of the packages
	StateDirectory   = "/var/lib/nnf-deploy"    // state of nnf-deploy on a node
)

// Names of the files with the credentials of a daemon, in its directory below /etc.
const (
	TokenFile = "service.token"
	CertFile  = "service.cert"
)

// StoredFiles are the names of the files in the state directory of a daemon: the token that it has
// renewed, what nnf-dm records about it, and what a crash can leave behind of both.
var StoredFiles = []string{TokenFile, TokenFile + ".new", "token.json", "token.json.new"}

// RenewalMode is the mode of the state directory of a daemon, octal. Only its user may enter it.
const RenewalMode = "0700"

// Keys of the settings that nnf-deploy writes.
const (
	KeyHost  = "kubernetes.service_host"
	KeyPort  = "kubernetes.service_port"
	KeyToken = "kubernetes.token_file"
	KeyCert  = "kubernetes.cert_file"
	KeyNode  = "node.name"
)

// Account is a service account.
type Account struct {
	Name      string `yaml:"name"`
	Namespace string `yaml:"namespace"`
}

// String returns namespace/name.
func (a Account) String() string { return a.Namespace + "/" + a.Name }

// User returns the user name of the account at the API server.
func (a Account) User() string { return api.ServiceAccount(a.Namespace, a.Name) }

// Daemon describes a daemon as the packages and nnf-deploy install it.
type Daemon struct {
	Name    string   // of the program, its package, its unit, and its directory below /etc
	Clients []string // client programs that are installed with it; "CLIENT version" contacts the daemon

	SocketActivated bool // systemd starts it on the first connection; its socket is enabled, not its service
	Mounts          bool // its status reports mounts

	Owner         string // of its credentials and directories, as USER:GROUP
	DirectoryMode string // of its directories, octal
	SecretMode    string // of its credentials, octal
	User          string // that it runs as; its state directory belongs to this user

	TimerText string // unit of the timer that starts it, so that it renews its token; "": it always runs

	Account       Account    // of a Near-Node Flash installation
	OlderAccounts []Account  // of older installations, newest first
	Manifest      string     // name of the manifest with account, Secret and role
	Rules         []api.Rule // of that role
}

// Daemons are the daemons that nnf-deploy can install, in the usual order.
var Daemons = []Daemon{
	{
		Name:  "clientmountd",
		Owner: "root:root", DirectoryMode: "0700", SecretMode: "0600", User: "root",
		Mounts:  true,
		Account: Account{"nnf-clientmount", "nnf-system"},
		OlderAccounts: []Account{
			{"dws-controller-manager", "dws-system"},
			{"dws-operator-controller-manager", "dws-operator-system"},
		},
		Manifest: "clientmountd-rbac.yaml",
		Rules:    api.RulesClientmountd,
	},
	{
		Name: "nnf-dm", Clients: []string{"nnf-dmctl"},
		Owner: "root:nnf-dm", DirectoryMode: "0750", SecretMode: "0640", User: "nnf-dm",
		SocketActivated: true, TimerText: units.NnfdmTimer,
		Account:       Account{"nnf-dm-daemon", "nnf-dm-system"},
		OlderAccounts: []Account{{"nnf-dm-controller-manager", "nnf-dm-system"}},
		Manifest:      "nnf-dm-rbac.yaml",
		Rules:         api.RulesDataMovement,
	},
}

// NodeAccount returns the account that the daemon has on one node only, if every node has its
// own: it has the name of the daemon, in the namespace of the node.
func (d Daemon) NodeAccount(node string) Account { return Account{d.Name, node} }

// other stands in for a daemon that nnf-deploy does not install, except for its credentials.
var other = Daemon{Owner: "root:root", DirectoryMode: "0700", SecretMode: "0600"}

// Of returns the daemon with this name. Known is false if there is no such daemon. The
// empty name is known: it is the name of daemons of which only credentials are installed.
func Of(program string) (d Daemon, known bool) {
	for _, d := range Daemons {
		if d.Name == program {
			return d, true
		}
	}
	return other, program == ""
}

// ValidName reports whether name is a valid name of a daemon: it becomes one component of a
// path, and part of messages and file names.
func ValidName(name string) bool { return validName.MatchString(name) }

var validName = regexp.MustCompile(`^[A-Za-z0-9_][-A-Za-z0-9_.]{0,63}$`)

// Names returns the names of all daemons.
func Names() (list []string) {
	for _, d := range Daemons {
		list = append(list, d.Name)
	}
	return list
}

// Credentials returns the paths of the credential files of a daemon with this name, which
// need not be one of Daemons.
func Credentials(name string) (token, cert string) {
	return Directory(name) + "/" + TokenFile, Directory(name) + "/" + CertFile
}

// StoredToken returns the path of the token that the daemon has renewed itself, in its state
// directory. The directory belongs to the user of the daemon.
func (d Daemon) StoredToken() string { return d.RenewalDirectory() + "/" + TokenFile }

// RenewalOwner returns the owner of the state directory, as USER:GROUP.
func (d Daemon) RenewalOwner() string { return d.User + ":" + d.User }

// RenewalDirectory returns the default state directory of the daemon, which tmpfiles.d creates.
func (d Daemon) RenewalDirectory() string { return "/var/lib/" + d.Name }

// Directory returns the directory below /etc of a daemon with this name.
func Directory(name string) string { return ConfigDirectory + "/" + name }

// Programs returns the programs of the daemon: the daemon itself, then its clients.
func (d Daemon) Programs() []string { return append([]string{d.Name}, d.Clients...) }

// Path returns the path of an installed program.
func Path(program string) string { return BinDirectory + "/" + program }

// Service returns the name of the service unit.
func (d Daemon) Service() string { return d.Name + ".service" }

// Socket returns the name of the socket unit, which only socket-activated daemons have.
func (d Daemon) Socket() string { return d.Name + ".socket" }

// Units returns the names of all units of the daemon, starting with the service.
func (d Daemon) Units() []string {
	if d.SocketActivated {
		return []string{d.Service(), d.Socket()}
	}
	return []string{d.Service()}
}

// Timer returns the name of the timer unit, or "" if the daemon needs none. The packages contain it.
// It is enabled on nodes where the daemon has an account of its own.
func (d Daemon) Timer() string {
	if d.TimerText == "" {
		return ""
	}
	return d.Name + ".timer"
}

// OwnTimer returns the path of the timer unit that nnf-deploy writes if there is no package.
func (d Daemon) OwnTimer() string { return UnitDirectory + "/" + d.Timer() }

// TimerDropIns returns the directory of the timer's drop-ins.
func (d Daemon) TimerDropIns() string { return d.OwnTimer() + ".d" }

// TimerRecord returns the path of the drop-in that records that nnf-deploy has enabled the timer.
func (d Daemon) TimerRecord() string { return d.TimerDropIns() + "/50-nnf-deploy.conf" }

// TimerLink returns the path of the link that enables the timer. systemctl does not remove it while the
// timer is masked.
func (d Daemon) TimerLink() string { return UnitDirectory + "/timers.target.wants/" + d.Timer() }

// Enabled returns the name of the unit that is enabled, and so started at boot.
func (d Daemon) Enabled() string {
	if d.SocketActivated {
		return d.Socket()
	}
	return d.Service()
}

// OwnUnits returns the paths of the units that "PROGRAM install" writes. They hide the units
// of the package.
func (d Daemon) OwnUnits() (service, socket string) {
	return UnitDirectory + "/" + d.Service(), UnitDirectory + "/" + d.Socket()
}

// ConfigDirectories returns the directories for credentials and settings.
func (d Daemon) ConfigDirectories() []string {
	return []string{Directory(d.Name), Directory(d.Name) + "/config.d"}
}

// Settings returns the path of the configuration file that nnf-deploy writes.
func (d Daemon) Settings() string { return Directory(d.Name) + "/config.d/50-nnf-deploy.toml" }

// DropIns returns the directory of the service's drop-ins.
func (d Daemon) DropIns() string { return UnitDirectory + "/" + d.Service() + ".d" }

// DropIn returns the path of the drop-in that nnf-deploy writes for arguments and
// environment.
func (d Daemon) DropIn() string { return d.DropIns() + "/50-nnf-deploy.conf" }

// OlderDropIn returns the path of the drop-in that earlier installers wrote.
func (d Daemon) OlderDropIn() string { return d.DropIns() + "/override.conf" }
