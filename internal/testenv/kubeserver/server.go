// Package kubeserver runs a real Kubernetes control plane on loopback ports: etcd, the API server
// and optionally Kubernetes' controllers.
package kubeserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/countersign-dev/countersign/internal/testenv/build"
	"github.com/countersign-dev/countersign/internal/testenv/process"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

// Options are the options of a control plane. The zero value is an API server with this project's
// CRDs and no controllers: a Deployment makes no Pods, and a Pod needs no service account.
type Options struct {
	// ControllerManager also runs the controllers of hack/kube/controllers, and builds kubectl.
	ControllerManager bool
	// WithoutCRDs does not install the CRDs of config/crd.
	WithoutCRDs bool
	// APIServerArgs are further arguments of the API server.
	APIServerArgs []string
	// Dir holds data, certificates and logs. Empty: a temporary folder that Stop removes.
	Dir string
	// Progress receives messages about builds. Nil: os.Stderr.
	Progress io.Writer
}

// Server is a running control plane on loopback ports. This package starts the processes itself:
// envtest leaves its servers running when a test binary panics or is interrupted.
type Server struct {
	// Config authenticates as an administrator (group system:masters).
	Config *rest.Config
	// Kubeconfig is the path of a file with the same configuration.
	Kubeconfig string
	// Kubectl is the path of kubectl; empty without the controller manager.
	Kubectl string

	options   Options
	dir       string
	ownsDir   bool
	binaries  build.KubeBinaries
	ca        *tlstest.CA
	processes []*process.Process // in start order
	apiServer apiServer
}

// apiServer is the process of the API server, and what a restart needs.
type apiServer struct {
	args    []string
	client  *http.Client // probes readiness
	process *process.Process
}

// Start builds the control plane if needed, and runs it. It returns when the API server is ready
// and serves the CRDs of config/crd.
func Start(ctx context.Context, options Options) (_ *Server, err error) {
	if options.Progress == nil {
		options.Progress = os.Stderr
	}
	k := &Server{options: options, dir: options.Dir}
	defer func() {
		if err != nil {
			_ = k.Stop()
		}
	}()
	commands := []string{"etcd", "kube-apiserver"}
	if options.ControllerManager {
		commands = nil // all
	}
	if k.binaries, err = build.Kube(ctx, options.Progress, commands...); err != nil {
		return nil, err
	}
	if k.dir == "" {
		if k.dir, err = os.MkdirTemp("", "countersign-kube-"); err != nil {
			return nil, fmt.Errorf("making a folder for the control plane: %w", err)
		}
		k.ownsDir = true
	}
	if k.ca, err = tlstest.NewCA("Kubernetes test CA"); err != nil {
		return nil, err
	}
	etcd, err := k.startEtcd(ctx)
	if err != nil {
		return nil, err
	}
	if err := k.startAPIServer(ctx, etcd); err != nil {
		return nil, err
	}
	if options.ControllerManager {
		k.Kubectl = k.binaries.Kubectl
		if err := k.startControllers(); err != nil {
			return nil, err
		}
	}
	if options.WithoutCRDs {
		return k, nil
	}
	return k, k.installCRDs()
}

// Run runs a control plane until the test ends.
func Run(t testing.TB, options Options) *Server {
	t.Helper()
	k, err := Start(t.Context(), options)
	if err != nil {
		t.Fatalf("starting the control plane: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(k.Tail())
		}
		if err := k.Stop(); err != nil {
			t.Errorf("stopping the control plane: %v", err)
		}
	})
	return k
}

func (k *Server) path(name string) string { return filepath.Join(k.dir, name) }

// rareGC makes a Go program collect garbage less often. Without it, etcd and the API server spend a
// fifth of their processor time on that.
const rareGC = "GOGC=300"

func (k *Server) start(name, path string, args ...string) (*process.Process, error) {
	p, err := process.Start(name, k.dir, append(os.Environ(), rareGC), path, args...)
	if err == nil {
		k.processes = append(k.processes, p)
	}
	return p, err
}

func (k *Server) startEtcd(ctx context.Context) (url string, err error) {
	port, err := process.FreePort()
	if err != nil {
		return "", err
	}
	url = fmt.Sprintf("http://127.0.0.1:%d", port)
	p, err := k.start("etcd", k.binaries.Etcd,
		"--data-dir", k.path("etcd"),
		"--listen-client-urls", url, "--advertise-client-urls", url,
		"--listen-peer-urls", "http://127.0.0.1:0",
		"--unsafe-no-fsync", "--logger=zap", "--log-level=warn",
	)
	if err != nil {
		return "", err
	}
	client := &http.Client{Timeout: 2 * time.Second}
	return url, p.Await(ctx, func(ctx context.Context) error { return process.Healthy(ctx, client, url+"/health") })
}

func (k *Server) startAPIServer(ctx context.Context, etcd string) error {
	if err := os.WriteFile(k.path("ca.crt"), k.ca.PEM, 0o644); err != nil {
		return err
	}
	serving, err := k.ca.Issue(pkix.Name{CommonName: "kube-apiserver"},
		"localhost", "127.0.0.1", "::1", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "10.0.0.1")
	if err != nil {
		return err
	}
	certFile, keyFile, err := serving.Write(k.dir, "apiserver")
	if err != nil {
		return err
	}
	tokenPrivate, tokenPublic, err := WriteTokenKey(k.dir)
	if err != nil {
		return err
	}
	port, err := process.FreePort()
	if err != nil {
		return err
	}
	args := []string{
		"--etcd-servers", etcd,
		"--bind-address", "127.0.0.1", "--endpoint-reconciler-type", "none", "--secure-port", strconv.Itoa(port),
		"--tls-cert-file", certFile, "--tls-private-key-file", keyFile, "--cert-dir", k.path("apiserver"),
		"--client-ca-file", k.path("ca.crt"),
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", tokenPublic, "--service-account-signing-key-file", tokenPrivate,
		"--service-cluster-ip-range", "10.0.0.0/24",
		"--authorization-mode", "RBAC", "--allow-privileged",
	}
	if !k.options.ControllerManager {
		args = append(args, "--disable-admission-plugins", "ServiceAccount") // no controller makes the default account
	}
	if err := k.writeKubeconfig("https://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(k.Config.CertData, k.Config.KeyData)
	if err != nil {
		return fmt.Errorf("reading the administrator's certificate: %w", err)
	}
	k.apiServer.args = append(args, k.options.APIServerArgs...)
	k.apiServer.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: k.ca.Pool(), Certificates: []tls.Certificate{pair}},
		DisableKeepAlives: true,
	}}
	return k.runAPIServer(ctx)
}

func (k *Server) runAPIServer(ctx context.Context) error {
	p, err := k.start("kube-apiserver", k.binaries.APIServer, k.apiServer.args...)
	if err != nil {
		return err
	}
	k.apiServer.process = p
	return p.Await(ctx, func(ctx context.Context) error {
		return process.Healthy(ctx, k.apiServer.client, k.Config.Host+"/readyz")
	})
}

// RestartAPIServer kills the API server and starts it again, with the same port and etcd. It
// returns when the API server is ready.
func (k *Server) RestartAPIServer(ctx context.Context) error {
	if err := k.apiServer.process.Kill(); err != nil {
		return err
	}
	i := slices.Index(k.processes, k.apiServer.process)
	k.processes = slices.Delete(k.processes, i, i+1)
	return k.runAPIServer(ctx)
}

// writeKubeconfig makes an administrator's certificate, and writes a kubeconfig with it.
func (k *Server) writeKubeconfig(host string) error {
	admin, err := k.ca.Issue(pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}})
	if err != nil {
		return err
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["countersign"] = &clientcmdapi.Cluster{Server: host, CertificateAuthorityData: k.ca.PEM}
	config.AuthInfos["admin"] = &clientcmdapi.AuthInfo{
		ClientCertificateData: admin.CertPEM, ClientKeyData: admin.KeyPEM,
	}
	config.Contexts["countersign"] = &clientcmdapi.Context{Cluster: "countersign", AuthInfo: "admin"}
	config.CurrentContext = "countersign"
	k.Kubeconfig = k.path("kubeconfig")
	if err := clientcmd.WriteToFile(*config, k.Kubeconfig); err != nil {
		return fmt.Errorf("writing the kubeconfig: %w", err)
	}
	k.Config, err = clientcmd.NewDefaultClientConfig(*config, nil).ClientConfig()
	if err != nil {
		return fmt.Errorf("reading the kubeconfig: %w", err)
	}
	k.Config.QPS, k.Config.Burst = 1000, 2000
	return nil
}

func (k *Server) startControllers() error {
	_, err := k.start("kube-controllers", k.binaries.Controllers, "--kubeconfig", k.Kubeconfig, "--root-ca-file",
		k.path("ca.crt"))
	return err
}

func (k *Server) installCRDs() error {
	root, err := build.ModuleRoot()
	if err != nil {
		return err
	}
	_, err = envtest.InstallCRDs(k.Config, envtest.CRDInstallOptions{
		Paths: []string{filepath.Join(root, "config", "crd")}, ErrorIfPathMissing: true, MaxTime: process.StartTimeout,
	})
	if err != nil {
		return fmt.Errorf("installing the CRDs of config/crd: %w", err)
	}
	return nil
}

// KubectlEnv returns the environment variables that kubectl and Helm need. They cache an API
// server's kinds by host and port. Another cluster may have used the same port before, so each
// cluster has its own cache folder.
func (k *Server) KubectlEnv() []string {
	return []string{"KUBECONFIG=" + k.Kubeconfig, "KUBECACHEDIR=" + k.path("kubectl-cache")}
}

// RunKubectl runs kubectl as an administrator, and returns its output and error output together. It
// returns an error if the exit status is not 0.
func (k *Server) RunKubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, k.Kubectl, args...)
	cmd.Env = append(os.Environ(), k.KubectlEnv()...)
	cmd.Stdin = strings.NewReader(stdin)
	process.Tie(cmd)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w", strings.Join(args, " "), err)
	}
	return out.String(), nil
}

// Tail returns the ends of the logs of all servers.
func (k *Server) Tail() string {
	var tails []string
	for _, p := range k.processes {
		tails = append(tails, p.Tail())
	}
	return strings.Join(tails, "\n")
}

// Stop ends the control plane, in reverse start order.
func (k *Server) Stop() (err error) {
	for i := len(k.processes) - 1; i >= 0; i-- {
		if e := k.processes[i].Stop(); err == nil {
			err = e
		}
	}
	if k.ownsDir {
		if e := os.RemoveAll(k.dir); err == nil {
			err = e
		}
	}
	return err
}
