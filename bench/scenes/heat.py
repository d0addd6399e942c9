"""Temperatures: materials, weather, and surfaces as a thermal camera sees them.

Emissivities are of the order of the tables in Vollmer and Moellmann, Infrared Thermal Imaging (Wiley, 2nd ed. 2018) and in
Salisbury and D'Aria, Emissivity of terrestrial materials in the 8-14 um atmospheric window (Remote Sensing of Environment
42, 1992). Temperatures are plausible choices, not measurements.
"""

from dataclasses import dataclass
from random import Random
from typing import NamedTuple


class Surface(NamedTuple):
    """One painted patch: temperatures in degrees Celsius, textures as their standard deviation in degrees."""

    temperature: float
    emissivity: float = 0.95
    around: float = 0.0  # temperature of its reflection
    mottle: float = 0.0  # broad patches
    leaf: float = 0.0  # fine clumps
    streak: float = 0.0  # vertical stains
    soil: float = 0.0  # patches that lie on the ground, in perspective
    ground: float = 0.0  # 1: takes shadows, and mirrors the sky above the horizon
    gloss: float = 0.0  # strength of reflection at grazing angles (1: water)
    sky: float = 0.0  # 1: its temperature is that of the sky at each row

    def warmer(self, by: float) -> "Surface":
        """Return a copy that is `by` degrees warmer."""
        return self._replace(temperature=self.temperature + by)


class Material(NamedTuple):
    """Degrees above the air in full sun, on an evening after it, and below the air under a clear night sky."""

    emissivity: float
    sun: float
    evening: float
    night: float
    spread: float  # standard deviation between two things of this material
    mottle: float = 0.15
    leaf: float = 0.2
    streak: float = 0.0
    soil: float = 0.0
    gloss: float = 0.0


MATERIALS = {
    "asphalt": Material(0.95, 17, 9, 1.0, 1.0, 0.12, 0.12, 0, 0.35, 0.25),
    "concrete": Material(0.93, 12, 6, 1.5, 1.2, 0.15, 0.12, 0, 0.35, 0.15),
    "grass": Material(0.97, 5, 0.5, 5.0, 1.0, 0.2, 0.25, 0, 0.7),
    "earth": Material(0.94, 13, 3, 3.0, 1.5, 0.2, 0.2, 0, 0.6),
    "leaves": Material(0.97, 2.5, 0.8, 1.5, 0.8, 0.3, 0.8),
    "bark": Material(0.95, 5, 2.5, 0.5, 0.8, 0.15, 0.4, 0.4),
    "brick": Material(0.93, 11, 6, 1.0, 1.8, 0.25, 0.2, 0.25),
    "plaster": Material(0.92, 9, 4, 2.0, 1.8, 0.25, 0.1, 0.3),
    "roof": Material(0.90, 20, 3, 7.0, 2.0, 0.3, 0.15, 0.4),
    "glass": Material(0.84, 4, 1, 1.5, 0.8, 0.15, 0.05),
    "paint": Material(0.90, 15, 1.5, 6.0, 2.0, 0.2, 0.08),
    "steel": Material(0.80, 11, 1, 4.0, 1.5, 0.15, 0.1),
    "plastic": Material(0.93, 13, 0.5, 3.5, 1.5, 0.15, 0.08),
    "rubber": Material(0.95, 14, 2, 2.0, 1.5, 0.15, 0.15),
    "wood": Material(0.92, 12, 1.5, 2.5, 1.5, 0.15, 0.15, 0.3),
    "board": Material(0.92, 3, 1, 1, 0.5, 0.08, 0.03),
}


@dataclass(frozen=True)
class Weather:
    """The parameters of a scene's temperatures. Shares in [0, 1], temperatures in degrees Celsius."""

    air: float
    sun: float  # share of full sun
    evening: float  # share of the day's heat that is still stored
    clear: float  # share of a clear sky
    water: float  # temperature of a river
    heated: float  # inside minus outside of a building
    sun_from: float  # direction of the sun: -1 left, 1 right
    indoors: bool = False

    @property
    def zenith(self) -> float:
        """Return the apparent temperature of the sky overhead."""
        return self.air - 3 - 42 * self.clear

    def of(self, dice: Random, material: str, lit: float = 1.0) -> Surface:
        """Draw a surface of a material; `lit` in [0, 1] is its share of the sun."""
        m = MATERIALS[material]
        change = self.sun * lit * m.sun + self.evening * m.evening - (1 - self.sun) * self.clear * m.night
        spread = m.spread * (0.45 if self.indoors else 0.35 + 0.65 * max(self.sun, self.evening, 0.6 * self.clear))
        calm = 0.4 if self.indoors else 0.45 + 0.75 * self.sun + 0.25 * self.clear
        around = self.air if self.indoors else self.air - 0.5 * (self.air - self.zenith) * dice.uniform(0.4, 1.0)
        return Surface(
            self.air + change + dice.gauss(0, spread),
            m.emissivity,
            around,
            *(calm * t * dice.uniform(0.6, 1.5) for t in (m.mottle, m.leaf, m.streak, m.soil)),
        )

    def ground(self, dice: Random, material: str) -> Surface:
        """As `of`, for flat ground: it receives shadows and reflects the sky at grazing angles."""
        return self.of(dice, material)._replace(around=0.0, ground=1.0, gloss=MATERIALS[material].gloss)

    def clothed(self, dice: Random, share: float, core: float = 33.0) -> Surface:
        """Draw cloth or fur over a warm body: `share` of the way from air to core temperature, plus some sun."""
        temperature = self.air + share * (core - self.air) + 5 * self.sun * dice.random() + dice.gauss(0, 0.5)
        return Surface(temperature, 0.95, self.air - 4 * self.clear, 0.35, 0.22, 0.1)

    def skin(self, dice: Random) -> Surface:
        """Draw bare skin, cooler in the cold."""
        return Surface(34.2 - 0.14 * max(0.0, 24 - self.air) + dice.gauss(0, 0.5), 0.98, self.air, 0.3, 0.3)


def draw_weather(dice: Random) -> Weather:
    """Draw outdoor weather: season, time of day, cloud cover. The order of warmth of the classes varies with it."""
    season = dice.random()  # 0 winter, 1 summer
    air = -8 + 36 * season + dice.gauss(0, 3)
    clear = dice.choice((0.0, 0.1, 0.5, 0.9, 1.0))
    kind = dice.choices(("day", "evening", "night", "dawn"), (5, 2, 4, 1))[0]
    sun = clear * dice.uniform(0.5, 1.0) * (0.45 + 0.55 * season) if kind == "day" else 0.0
    evening = {"day": dice.uniform(0, 0.25), "evening": dice.uniform(0.5, 1), "night": dice.uniform(0, 0.4)}.get(
        kind, 0.0
    )
    water = 4 + 16 * season + dice.gauss(0, 1.5)
    heated = max(0.0, 21 - air) * dice.uniform(0.4, 1.0)
    side = dice.choice((-1.0, 1.0)) * dice.uniform(0.3, 1.0)
    return Weather(air, sun, evening * (0.3 + 0.7 * clear), clear, water, heated, side)


def draw_room(dice: Random) -> Weather:
    """Draw indoor weather: everything but people and machines is within a degree or two of the air."""
    air = dice.uniform(16, 29)
    return Weather(air, 0, 0, 0, air, dice.uniform(-12, 20), 0, indoors=True)
