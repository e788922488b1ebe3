//go:build node

// Package node tests the installation in a real cluster on this machine, with Pods that run: etcd,
// the API server with all controllers, the scheduler, kube-proxy, containerd and a kubelet. "make
// test-node" runs it; it needs Linux and root.
//
// The test binary first builds servers and images, which needs a network. Then it starts itself
// again, as the first process of new namespaces for processes, mounts and the network. The inner
// process runs the cluster. No other process sees its bridge, iptables rules, mounts and processes,
// and the kernel removes them when the inner process ends. The outer process removes the folder and
// the control groups.
package node
