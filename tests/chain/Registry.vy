# pragma version 0.4.3
# @notice The part of an ERC-8004 registry of identities that Assay uses; for tests only.
# @dev    Written after the text of the ERC: the registries that chains have are other people's.

event Registered:
    agentId: indexed(uint256)
    agentURI: String[32768]
    owner: indexed(address)

event URIUpdated:
    agentId: indexed(uint256)
    newURI: String[32768]
    updatedBy: indexed(address)

count: uint256
owners: HashMap[uint256, address]
uris: HashMap[uint256, String[32768]]

@external
def register(agentURI: String[32768]) -> uint256:
    agent: uint256 = self.count
    self.count += 1
    self.owners[agent] = msg.sender
    self.uris[agent] = agentURI
    log Registered(agentId=agent, agentURI=agentURI, owner=msg.sender)
    return agent

@external
def setAgentURI(agentId: uint256, newURI: String[32768]):
    assert self.owners[agentId] == msg.sender, "not its owner"
    self.uris[agentId] = newURI
    log URIUpdated(agentId=agentId, newURI=newURI, updatedBy=msg.sender)

@external
@view
def ownerOf(agentId: uint256) -> address:
    assert self.owners[agentId] != empty(address), "no such agent"
    return self.owners[agentId]

@external
@view
def tokenURI(agentId: uint256) -> String[32768]:
    return self.uris[agentId]
