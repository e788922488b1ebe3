//go:build node && linux

package node

import (
	"context"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/testenv/process"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

// Addresses of the cluster. They exist only in its own network namespace, so they are always free.
const (
	nodeName     = "node"
	bridge       = "countersign0"
	nodeIP       = "10.217.0.1"
	podRange     = "10.217.0.0/16"
	services     = "10.96.0.0/16"
	kubernetesIP = "10.96.0.1"
	etcdURL      = "http://127.0.0.1:2379"
	apiServer    = "https://" + nodeIP + ":6443"
)

// A cluster is a control plane and a node.
type cluster struct {
	*prepared
	config *rest.Config // an administrator's
	ca     *tlstest.CA
	parts  []*part // in start order
	cutOff bool    // Pods have no network, so the node is not ready
}

// A part is a server of the cluster.
type part struct {
	name, path string
	args       []string
	ready      func(context.Context) error // nil: ready at once
	attempts   int                         // starts if it ends before it is ready; 0: one
	process    *process.Process            // nil: not running
}

// newCluster writes the certificates and configurations of a cluster. It does not start it.
func newCluster(p *prepared, pause string) (*cluster, error) {
	c := &cluster{prepared: p}
	if err := errors.Join(os.MkdirAll(c.path("log"), 0o755), c.network()); err != nil {
		return nil, err
	}
	var err error
	if c.ca, err = tlstest.NewCA("Kubernetes test CA"); err != nil {
		return nil, err
	}
	if err := os.WriteFile(c.path("ca.crt"), c.ca.PEM, 0o644); err != nil {
		return nil, err
	}
	if err := c.accounts(); err != nil {
		return nil, err
	}
	if err := errors.Join(c.configureContainerd(pause), c.configureKubelet()); err != nil {
		return nil, err
	}
	api, err := c.apiServer()
	if err != nil {
		return nil, err
	}
	c.parts = append([]*part{c.etcd(), api}, c.others()...)
	return c, nil
}

func (c *cluster) path(name string) string { return filepath.Join(c.Dir, name) }

// network makes the Pods' bridge, and routes the Services' addresses to it, so that kube-proxy's
// rules apply to them.
func (c *cluster) network() error {
	for _, args := range [][]string{
		{"link", "add", bridge, "type", "bridge"},
		{"address", "add", nodeIP + "/16", "dev", bridge},
		{"link", "set", bridge, "up"},
		{"route", "add", services, "dev", bridge},
	} {
		if err := command("ip", args...); err != nil {
			return err
		}
	}
	return errors.Join(
		os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644),
		os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("1"), 0o644),
	)
}

// accounts makes a certificate and a kubeconfig for an administrator and for each part. The parts
// use Kubernetes' predefined users, which have the rights that they need.
func (c *cluster) accounts() error {
	for file, subject := range map[string]pkix.Name{
		"admin":              {CommonName: "admin", Organization: []string{"system:masters"}},
		"controller-manager": {CommonName: "system:kube-controller-manager"},
		"scheduler":          {CommonName: "system:kube-scheduler"},
		"proxy":              {CommonName: "system:kube-proxy"},
		"kubelet":            {CommonName: "system:node:" + nodeName, Organization: []string{"system:nodes"}},
	} {
		cert, err := c.ca.Issue(subject)
		if err != nil {
			return err
		}
		config := clientcmdapi.NewConfig()
		config.Clusters["node"] = &clientcmdapi.Cluster{Server: apiServer, CertificateAuthorityData: c.ca.PEM}
		config.AuthInfos[file] = &clientcmdapi.AuthInfo{ClientCertificateData: cert.CertPEM, ClientKeyData: cert.KeyPEM}
		config.Contexts["node"] = &clientcmdapi.Context{Cluster: "node", AuthInfo: file}
		config.CurrentContext = "node"
		if err := clientcmd.WriteToFile(*config, c.path(file+".kubeconfig")); err != nil {
			return fmt.Errorf("writing a kubeconfig: %w", err)
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", c.path("admin.kubeconfig"))
	if err != nil {
		return fmt.Errorf("reading a kubeconfig: %w", err)
	}
	config.QPS, config.Burst = 1000, 2000
	config.WarningHandler = rest.NoWarnings{}
	c.config = config
	return nil
}

func (c *cluster) etcd() *part {
	return &part{name: "etcd", path: c.Kube.Etcd, args: []string{
		"--data-dir", c.path("etcd"), "--listen-client-urls", etcdURL, "--advertise-client-urls", etcdURL,
		"--listen-peer-urls", "http://127.0.0.1:0", "--unsafe-no-fsync", "--log-level=warn",
	}, ready: answers(http.DefaultClient, etcdURL+"/health")}
}

func (c *cluster) apiServer() (*part, error) {
	serving, err := c.ca.Issue(pkix.Name{CommonName: "kube-apiserver"},
		"localhost", "127.0.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc", kubernetesIP, nodeIP)
	if err != nil {
		return nil, err
	}
	certFile, keyFile, err := serving.Write(c.Dir, "apiserver")
	if err != nil {
		return nil, err
	}
	toKubelet, err := c.ca.Issue(pkix.Name{CommonName: "kube-apiserver", Organization: []string{"system:masters"}})
	if err != nil {
		return nil, err
	}
	clientCert, clientKey, err := toKubelet.Write(c.Dir, "apiserver-kubelet")
	if err != nil {
		return nil, err
	}
	if _, _, err := kubeserver.WriteTokenKey(c.Dir); err != nil {
		return nil, err
	}
	asAdmin, err := rest.HTTPClientFor(c.config)
	if err != nil {
		return nil, err
	}
	return &part{name: "kube-apiserver", path: c.Kube.APIServer, args: []string{
		"--etcd-servers", etcdURL, "--advertise-address", nodeIP, "--secure-port", "6443",
		"--tls-cert-file", certFile, "--tls-private-key-file", keyFile, "--client-ca-file", c.path("ca.crt"),
		"--cert-dir", c.path("apiserver"),
		"--kubelet-client-certificate", clientCert, "--kubelet-client-key", clientKey,
		"--kubelet-preferred-address-types", "InternalIP",
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", c.path("service-account.pub"), "--service-account-signing-key-file",
		c.path("service-account.key"),
		"--service-cluster-ip-range", services, "--authorization-mode", "Node,RBAC", "--enable-admission-plugins",
		"NodeRestriction",
	}, ready: answers(asAdmin, apiServer+"/readyz")}, nil
}

// others returns the parts other than etcd and the API server.
func (c *cluster) others() []*part {
	return []*part{
		{name: "kube-controller-manager", path: c.Kube.ControllerManager, args: []string{
			"--kubeconfig", c.path("controller-manager.kubeconfig"), "--use-service-account-credentials",
			"--leader-elect=false",
			"--service-account-private-key-file", c.path("service-account.key"), "--root-ca-file", c.path("ca.crt"),
		}},
		{
			name: "kube-scheduler", path: c.Kube.Scheduler,
			args: []string{"--kubeconfig", c.path("scheduler.kubeconfig"), "--leader-elect=false"},
		},
		{name: "containerd", path: "containerd", args: []string{"--config", c.path("containerd.toml")},
			ready: func(context.Context) error {
				_, err := os.Stat(containerdSocket)
				return err
			}},
		{name: "kubelet", path: c.Kube.Kubelet, args: []string{
			"--config", c.path("kubelet.json"), "--kubeconfig", c.path("kubelet.kubeconfig"), "--root-dir",
			c.path("kubelet"),
			"--hostname-override", nodeName, "--node-ip", nodeIP,
			// Restarted, as by systemd: it ends while containerd is still loading its state.
		}, ready: c.nodeReady, attempts: 30},
		{name: "kube-proxy", path: c.Kube.Proxy, args: []string{
			"--kubeconfig", c.path("proxy.kubeconfig"), "--hostname-override", nodeName, "--proxy-mode", "iptables",
			"--cluster-cidr", podRange, "--conntrack-max-per-core", "0", // otherwise it changes the machine's setting
			"--conntrack-tcp-timeout-established", "0", "--conntrack-tcp-timeout-close-wait", "0",
		}, ready: answers(http.DefaultClient, "http://127.0.0.1:10256/healthz")},
	}
}

// start starts the parts that do not run, in order, and returns when all are ready.
func (c *cluster) start(ctx context.Context) error { return c.startFirst(ctx, len(c.parts)) }

// startFirst is start for the first n parts. The first two are etcd and the API server.
func (c *cluster) startFirst(ctx context.Context, n int) error {
	for _, p := range c.parts[:n] {
		if p.process != nil {
			continue
		}
		if err := c.startPart(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) startPart(ctx context.Context, p *part) error {
	path, err := lookPath(p.path)
	if err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		if p.process, err = process.Start(p.name, c.path("log"), nil, path, p.args...); err != nil || p.ready == nil {
			return err
		}
		err := p.process.Await(ctx, p.ready)
		if err == nil || !p.process.Ended() || attempt >= p.attempts {
			return err
		}
	}
}

// tail returns the ends of the logs of the named parts.
func (c *cluster) tail(names ...string) (text string) {
	for _, p := range c.parts {
		if slices.Contains(names, p.name) && p.process != nil {
			text += p.process.Tail() + "\n"
		}
	}
	return text
}

// nodeReady returns nil if the kubelet is healthy and the API server reports the node as ready.
// That report alone may be old. If Pods have no network, the node must report that instead.
func (c *cluster) nodeReady(ctx context.Context) error {
	if err := answers(http.DefaultClient, "http://127.0.0.1:10248/healthz")(ctx); err != nil {
		return err
	}
	api, err := client.New(c.config, client.Options{})
	if err != nil {
		return err
	}
	node := &corev1.Node{}
	if err := api.Get(ctx, client.ObjectKey{Name: nodeName}, node); err != nil {
		return err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type != corev1.NodeReady {
			continue
		}
		if c.cutOff && condition.Status == corev1.ConditionFalse &&
			strings.Contains(condition.Message, "NetworkReady=false") {
			return nil
		}
		if !c.cutOff && condition.Status == corev1.ConditionTrue {
			return nil
		}
	}
	text, _ := json.Marshal(node.Status.Conditions)
	return fmt.Errorf("got node conditions %s, want ready: %t", text, !c.cutOff)
}

// answers returns a check that a GET request gets status 200.
func answers(c *http.Client, url string) func(context.Context) error {
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := c.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s returns %s: %s", url, resp.Status, body)
		}
		return nil
	}
}
