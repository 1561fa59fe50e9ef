//! A Redis Cluster of three masters.

use super::resp::Reply;
use super::server::RedisServer;
use crate::waiting;

const NODES: usize = 3;
const SLOTS: usize = 16_384;

/// Three masters that share all slots, in order: the first has those from 0.
pub(crate) struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts it and waits until every node says that it works. Where a node is gone its slots fail, the others
    /// answer on.
    pub(crate) fn start() -> Self {
        let options = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "1000",
            "--cluster-require-full-coverage",
            "no",
            "--cluster-announce-ip",
            "127.0.0.1",
        ];
        let nodes: Vec<_> = (0..NODES)
            .map(|_| RedisServer::start_with(&options))
            .collect();
        for (index, node) in nodes.iter().enumerate() {
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
            let first = (SLOTS * index).div_ceil(NODES).to_string();
            let last = ((SLOTS * (index + 1)).div_ceil(NODES) - 1).to_string();
            node.command(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
            for other in &nodes[index + 1..] {
                let port = other.address().port().to_string();
                node.command(&["CLUSTER", "MEET", "127.0.0.1", &port]);
            }
        }
        let cluster = RedisCluster { nodes };
        waiting::until("every node of the cluster works", || {
            cluster.nodes.iter().all(|node| {
                let state = node.command(&["CLUSTER", "INFO"]);
                ["state:ok", "slots_ok:16384", "known_nodes:3", "size:3"]
                    .iter()
                    .all(|fact| state.contains(&format!("cluster_{fact}\r\n")))
            })
        });
        cluster
    }

    /// The URLs of its nodes.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(RedisServer::url).collect()
    }

    pub(crate) fn node(&self, index: usize) -> &RedisServer {
        &self.nodes[index]
    }

    /// The index of the node that has this key's slot.
    pub(crate) fn node_of(&self, key: &str) -> usize {
        let mut running = self.nodes.iter();
        let slot = running.find_map(|node| node.ask(&["CLUSTER", "KEYSLOT", key]).ok());
        slot.unwrap().text().parse::<usize>().unwrap() * NODES / SLOTS
    }

    /// One command, asked of this node and then of the one that it names.
    pub(crate) fn command(&self, first: usize, command: &[&str]) -> String {
        match self.nodes[first].ask(command).unwrap() {
            Reply::Error(error) if error.starts_with("MOVED ") => {
                let address = error.rsplit(' ').next().unwrap().parse().unwrap();
                let mut nodes = self.nodes.iter();
                let right = nodes.find(|node| node.address() == address).unwrap();
                right.command(command)
            }
            Reply::Error(error) => panic!("{command:?}: {error}"),
            reply => reply.text(),
        }
    }

    /// Kills a node (SIGKILL); nobody takes its slots over.
    pub(crate) fn kill_node(&mut self, index: usize) {
        self.nodes[index].kill();
    }

    /// Starts a killed node again, empty, with its old slots.
    pub(crate) fn restart_node(&mut self, index: usize) {
        self.nodes[index].restart();
    }
}
